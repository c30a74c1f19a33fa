//! Reading a comma-separated table by column name, with every fault named by its row.

use std::path::Path;

use super::finding::{Finding, Problem};

/// The mark some editors put before UTF-8 text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads `root/file`, or explains why not.
pub(super) fn read_file(root: &Path, file: &str, findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
    match std::fs::read(root.join(file)) {
        Ok(mut bytes) => {
            if bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            Some(bytes)
        }
        Err(error) => {
            let problem = if error.kind() == std::io::ErrorKind::NotFound {
                Problem::MissingFile
            } else {
                Problem::UnreadableFile {
                    reason: error.to_string(),
                }
            };
            findings.push(problem.of(file, None));
            None
        }
    }
}

/// Calls `each` with the row number and the fields named by `columns`, in that order. Columns may stand in any order
/// in the file and others may stand beside them. Rows that cannot be taken apart are reported and left out.
pub(super) fn read_rows<const N: usize>(
    root: &Path,
    file: &str,
    columns: [&str; N],
    findings: &mut Vec<Finding>,
    mut each: impl FnMut(usize, [&str; N], &mut Vec<Finding>),
) {
    let Some(bytes) = read_file(root, file, findings) else {
        return;
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let expected = columns.join(", ");
        findings.push(Problem::EmptyFile { expected }.of(file, None));
        return;
    }
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(bytes.as_slice());
    let header = match reader.byte_headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            let reason = error.to_string();
            findings.push(Problem::UnreadableFile { reason }.of(file, None));
            return;
        }
    };
    let Some(places) = places(&header, columns, file, findings) else {
        return;
    };
    let mut record = csv::ByteRecord::new();
    let mut num_rows = 0usize;
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let reason = error.to_string();
                findings.push(Problem::UnreadableFile { reason }.of(file, None));
                return;
            }
        }
        num_rows += 1;
        let row = record
            .position()
            .map_or(num_rows + 1, |position| position.line() as usize);
        if record.len() != header.len() {
            let problem = Problem::FieldCount {
                found: record.len(),
                expected: header.len(),
            };
            findings.push(problem.at(file, row, None));
            continue;
        }
        let mut fields = [""; N];
        let mut readable = true;
        for ((field, &place), column) in fields.iter_mut().zip(&places).zip(columns) {
            match std::str::from_utf8(&record[place]) {
                Ok(text) => *field = text,
                Err(_) => {
                    findings.push(Problem::NotUtf8.at(file, row, Some(column)));
                    readable = false;
                }
            }
        }
        if readable {
            each(row, fields, findings);
        }
    }
    if num_rows == 0 {
        findings.push(Problem::NoRows.of(file, None));
    }
}

/// Where each wanted column stands; every missing or repeated one is reported.
fn places<const N: usize>(
    header: &csv::ByteRecord,
    columns: [&str; N],
    file: &str,
    findings: &mut Vec<Finding>,
) -> Option<[usize; N]> {
    let names: Vec<String> = header
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_string())
        .collect();
    let mut places = [0; N];
    let mut complete = true;
    for (place, column) in places.iter_mut().zip(columns) {
        let mut found = (0..names.len()).filter(|&index| names[index] == column);
        match (found.next(), found.next()) {
            (Some(index), None) => *place = index,
            (Some(_), Some(_)) => {
                findings.push(Problem::RepeatedColumn.of(file, Some(column)));
                complete = false;
            }
            (None, _) => {
                let found = names.join(", ");
                findings.push(Problem::MissingColumn { found }.of(file, Some(column)));
                complete = false;
            }
        }
    }
    complete.then_some(places)
}

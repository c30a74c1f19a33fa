//! Whose turn it is: pictures wait in a line for each host, and no host is asked faster than agreed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::task::{Task, host_of};

/// A line for one host.
#[derive(Debug)]
struct Line {
    waiting: VecDeque<Task>,
    /// Tried before, and not to be tried again before a time.
    later: Vec<(Instant, Task)>,
    /// When the host may be asked next.
    next_start: Instant,
}

/// The lines of all hosts.
#[derive(Debug)]
pub struct Hosts {
    interval: Duration,
    lines: Vec<Line>,
    numbers: HashMap<String, usize>,
    /// Hosts with something to ask for, by when that may be.
    agenda: BTreeSet<(Instant, usize)>,
    num_out: usize,
}

/// What there is to do now.
#[derive(Debug)]
pub enum Turn {
    Task(Task),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing any more.
    Done,
}

impl Hosts {
    /// `interval` apart are the requests to one host.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            lines: Vec::new(),
            numbers: HashMap::new(),
            agenda: BTreeSet::new(),
            num_out: 0,
        }
    }

    fn number(&mut self, host: String, now: Instant) -> usize {
        let lines = &mut self.lines;
        *self.numbers.entry(host).or_insert_with(|| {
            lines.push(Line {
                waiting: VecDeque::new(),
                later: Vec::new(),
                next_start: now,
            });
            lines.len() - 1
        })
    }

    /// When the host's line may move next, if there is anybody in it.
    fn due(&self, number: usize) -> Option<Instant> {
        let line = &self.lines[number];
        let earliest = match line.waiting.is_empty() {
            false => line.next_start,
            true => *line.later.iter().map(|(time, _)| time).min()?,
        };
        Some(earliest.max(line.next_start))
    }

    /// Changes a line and its place on the agenda.
    fn change<T>(&mut self, number: usize, change: impl FnOnce(&mut Line) -> T) -> T {
        if let Some(due) = self.due(number) {
            self.agenda.remove(&(due, number));
        }
        let result = change(&mut self.lines[number]);
        if let Some(due) = self.due(number) {
            self.agenda.insert((due, number));
        }
        result
    }

    /// Puts a picture at the end of its host's line.
    pub fn add(&mut self, task: Task, now: Instant) {
        let number = self.number(host_of(&task.url), now);
        self.change(number, |line| line.waiting.push_back(task));
    }

    /// What may be asked for now. Whoever takes a task ends it by [`Hosts::end`] or [`Hosts::give_back`].
    pub fn take(&mut self, now: Instant) -> Turn {
        let Some(&(due, number)) = self.agenda.first() else {
            return match self.num_out {
                0 => Turn::Done,
                // What is out may come back.
                _ => Turn::Wait(now + Duration::from_millis(50)),
            };
        };
        if due > now {
            return Turn::Wait(due);
        }
        let interval = self.interval;
        let task = self.change(number, |line| {
            line.next_start = now + interval;
            // Of those put off, the first whose time has come goes before those who never had a turn.
            let ready = line.later.iter().position(|(time, _)| *time <= now);
            match ready {
                Some(place) => Some(line.later.swap_remove(place).1),
                None => line.waiting.pop_front(),
            }
        });
        match task {
            Some(task) => {
                self.num_out += 1;
                Turn::Task(task)
            }
            // Not reached: who is due has somebody to send.
            None => Turn::Wait(now + interval),
        }
    }

    /// A taken task is done with.
    pub fn end(&mut self) {
        self.num_out = self.num_out.saturating_sub(1);
    }

    /// A taken task is to be tried again, not before `time`.
    pub fn give_back(&mut self, task: Task, time: Instant, now: Instant) {
        self.end();
        let number = self.number(host_of(&task.url), now);
        self.change(number, |line| line.later.push((time, task)));
    }

    /// Leaves a host alone until `time`.
    pub fn hold(&mut self, host: String, time: Instant, now: Instant) {
        let number = self.number(host, now);
        self.change(number, |line| line.next_start = line.next_start.max(time));
    }

    /// Takes a turn at a host outside its line, for a redirect; when it is.
    pub fn reserve(&mut self, host: String, now: Instant) -> Instant {
        let interval = self.interval;
        let number = self.number(host, now);
        self.change(number, |line| {
            let start = line.next_start.max(now);
            line.next_start = start + interval;
            start
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn task(url: &str) -> Task {
        Task {
            item: "i".into(),
            image: "i.png".into(),
            target: PathBuf::new(),
            url: url.parse().expect("an address"),
            num_tries: 0,
        }
    }

    fn taken(hosts: &mut Hosts, now: Instant) -> Option<String> {
        match hosts.take(now) {
            Turn::Task(task) => Some(task.url.to_string()),
            _ => None,
        }
    }

    #[test]
    fn each_host_has_its_own_pace() {
        let start = Instant::now();
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut hosts = Hosts::new(Duration::from_millis(100));
        for url in ["http://a/1", "http://a/2", "http://b/1", "http://a:81/1"] {
            hosts.add(task(url), start);
        }
        let first: BTreeSet<_> = (0..3).filter_map(|_| taken(&mut hosts, start)).collect();
        let expected = ["http://a/1", "http://b/1", "http://a:81/1"].map(String::from);
        assert_eq!(first, expected.into());
        assert_eq!(taken(&mut hosts, later(99)), None);
        assert_eq!(taken(&mut hosts, later(100)).as_deref(), Some("http://a/2"));
        assert!(
            matches!(hosts.take(later(100)), Turn::Wait(_)),
            "four are out"
        );
        (0..4).for_each(|_| hosts.end());
        assert!(matches!(hosts.take(later(100)), Turn::Done));
    }

    #[test]
    fn a_host_on_hold_keeps_nobody_else_waiting() {
        let start = Instant::now();
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut hosts = Hosts::new(Duration::from_millis(10));
        for url in ["http://a/1", "http://a/2", "http://b/1"] {
            hosts.add(task(url), start);
        }
        hosts.hold("a:80".into(), later(1_000), start);
        assert_eq!(taken(&mut hosts, start).as_deref(), Some("http://b/1"));
        assert!(matches!(hosts.take(later(999)), Turn::Wait(time) if time == later(1_000)));
        assert!(taken(&mut hosts, later(1_000)).is_some());
    }

    #[test]
    fn what_comes_back_waits_its_time_and_then_goes_first() {
        let start = Instant::now();
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut hosts = Hosts::new(Duration::from_millis(10));
        hosts.add(task("http://a/1"), start);
        hosts.add(task("http://a/2"), start);
        hosts.add(task("http://a/3"), start);
        let Turn::Task(first) = hosts.take(start) else {
            panic!("a task")
        };
        hosts.give_back(first, later(15), start);
        assert_eq!(taken(&mut hosts, later(10)).as_deref(), Some("http://a/2"));
        assert_eq!(taken(&mut hosts, later(20)).as_deref(), Some("http://a/1"));
        let reserved = hosts.reserve("a:80".into(), later(20));
        assert_eq!(reserved, later(30));
        assert_eq!(
            taken(&mut hosts, later(30)),
            None,
            "a redirect took this turn"
        );
        assert_eq!(taken(&mut hosts, later(40)).as_deref(), Some("http://a/3"));
    }
}

//! Modal Mapper (GILL).

//! The script's log: one line of JSON each on standard output, where `crucible logs` finds it.

use std::io::{stdout, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{json, Map, Value};

use crate::trace::Trace;

const LEVELS: [&str; 4] = ["debug", "info", "warning", "error"];

/// Write a line: time, level, message, the ids of the trace if there is one, and the fields.
///
/// Nothing below `CRUCIBLE_LOG_LEVEL`, `info` unless set.
pub fn write(level: usize, message: &str, fields: Map<String, Value>, trace: Option<&Trace>) {
    let wanted = std::env::var("CRUCIBLE_LOG_LEVEL").unwrap_or_default();
    if level < LEVELS.iter().position(|name| *name == wanted).unwrap_or(1) {
        return;
    }
    let mut line = Map::new();
    line.insert("time".to_owned(), json!(now()));
    line.insert("level".to_owned(), json!(LEVELS[level.min(3)]));
    line.insert("message".to_owned(), json!(message));
    if let Some(span) = trace {
        line.insert("trace_id".to_owned(), json!(span.trace_id));
        line.insert("span_id".to_owned(), json!(span.span_id));
    }
    line.extend(fields);
    let text = Value::Object(line).to_string() + "\n";
    let mut out = stdout().lock();
    // Whoever reads no more does not end the script.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The time of day, in UTC.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() as libc::time_t;
    // SAFETY: both are plain data of this function's own.
    let parts = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&seconds, &mut parts);
        parts
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        since.subsec_millis()
    )
}

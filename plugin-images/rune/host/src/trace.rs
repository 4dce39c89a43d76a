//! W3C trace context: what came with a call or message goes on with what is said meanwhile.

use crate::wire::Frame;

/// Bytes of a `tracestate` that are passed on: a longer one would leave other headers no room.
const STATE: usize = 512;

/// One span of a trace.
#[derive(Clone)]
pub struct Trace {
    pub trace_id: String,
    pub span_id: String,
    flags: String,
    state: String,
}

impl Trace {
    /// Return a span below the one that came with a frame; None when none came, or nothing that is one.
    pub fn of(frame: &Frame) -> Option<Self> {
        let parts: Vec<&str> = frame.header("traceparent").split('-').collect();
        let [version, trace_id, span_id, flags, ..] = parts.as_slice() else { return None };
        let given = |text: &str| text.bytes().any(|digit| digit != b'0');
        let right = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(span_id, 16) && is_hex(flags, 2);
        if !right || *version == "ff" || !given(trace_id) || !given(span_id) {
            return None;
        }
        Some(Self {
            trace_id: (*trace_id).to_owned(),
            span_id: random_span(),
            flags: (*flags).to_owned(),
            state: Some(frame.header("tracestate")).filter(|state| state.len() <= STATE).unwrap_or_default().to_owned(),
        })
    }

    /// Return what is said of it to whoever does a part of it.
    pub fn parent(&self) -> String {
        format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags)
    }

    /// Return the headers of what is said as part of it.
    pub fn headers(&self) -> Vec<(String, String)> {
        let mut said = vec![("traceparent".to_owned(), self.parent())];
        if !self.state.is_empty() {
            said.push(("tracestate".to_owned(), self.state.clone()));
        }
        said
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

fn random_span() -> String {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as is said. So few bytes come whole, or with an error: then it is no random span.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    format!("{:016x}", u64::from_be_bytes(bytes).max(1))
}

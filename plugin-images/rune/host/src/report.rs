//! Says where in a script something is wrong, one line for each place.

use rune::ast::{Span, Spanned};
use rune::diagnostics::{Diagnostic, FatalDiagnosticKind};
use rune::runtime::{DebugInfo, VmError};
use rune::{Diagnostics, SourceId, Sources};

/// As many lines as tell a person where to look; a deep recursion has thousands.
const LINES: usize = 16;

/// Return what keeps a script from compiling: `name:line:column: message`, the first mistake first.
pub fn mistakes(diagnostics: &Diagnostics, sources: &Sources) -> Vec<String> {
    let fatal = diagnostics.diagnostics().iter().filter_map(|one| match one {
        Diagnostic::Fatal(fatal) => Some(fatal),
        _ => None,
    });
    fatal
        .take(LINES)
        .map(|one| {
            let message = one_line(&one.to_string());
            match one.kind() {
                FatalDiagnosticKind::CompileError(error) => {
                    format!("{}: {message}", place(sources, one.source_id(), error.span()))
                }
                _ => message,
            }
        })
        .collect()
}

/// Return a running script's error, and below it the places it came through, the innermost first.
pub fn failure(error: &VmError, sources: &Sources) -> Vec<String> {
    let mut lines = vec![one_line(&error.to_string())];
    let Some(at) = error.first_location() else { return lines };
    let Some(debug) = at.unit.debug_info() else { return lines };
    let outer = at.frames.iter().rev().map(|frame| frame.ip);
    let count = 1 + at.frames.len();
    for ip in std::iter::once(at.ip).chain(outer).take(LINES) {
        if let Some(found) = debug.instruction_at(ip) {
            let place = place(sources, found.source_id, found.span);
            lines.push(format!("  at {place}{}", function(debug, ip)));
        }
    }
    if count > LINES {
        lines.push(format!("  and {} more", count - LINES));
    }
    lines
}

fn function(debug: &DebugInfo, ip: usize) -> String {
    let start = debug.functions_rev.keys().filter(|start| **start <= ip).max();
    match start.and_then(|start| debug.function_at(*start)) {
        Some((_, signature)) => format!(", in {}", signature.path),
        None => String::new(),
    }
}

fn place(sources: &Sources, id: SourceId, span: Span) -> String {
    match sources.get(id) {
        Some(source) => {
            let (line, column) = source.pos_to_utf8_linecol(span.start.into_usize());
            format!("{}:{}:{}", source.name(), line + 1, column + 1)
        }
        None => "?".to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

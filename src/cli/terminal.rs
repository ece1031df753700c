//! The terminal: whether color and progress bars may be drawn, and how wide it is.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar as _;

/// Whether color and moving bars may be drawn: standard error is a terminal, and `NO_COLOR` is not
/// set.
pub(super) fn may_draw() -> bool {
    io::stderr().is_terminal() && allows(std::env::var_os("NO_COLOR").as_deref())
}

/// Whether this value of `NO_COLOR` allows drawing. By the convention of no-color.org, an empty
/// value counts as not set.
fn allows(no_color: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty)
}

/// Returns the number of columns of standard output; `None` if it is no terminal.
pub(super) fn width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    tcgetwinsize(stdout).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Returns a line cut to this many columns. An ellipsis marks the cut.
pub(super) fn fitted(line: &str, columns: usize) -> String {
    let widths = line.chars().map(|c| c.width().unwrap_or(0));
    if widths.sum::<usize>() <= columns {
        return line.to_owned();
    }
    let mut used = 0;
    let mut kept: String = line
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used < columns
        })
        .collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_wider_than_the_terminal_is_cut_by_columns() {
        for (line, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("顧客x", 5, "顧客x"),
            ("顧客xy", 5, "顧客…"),
            ("顧客顧", 5, "顧客…"),
            ("顧客顧", 4, "顧…"),
            ("ab", 1, "…"),
            ("", 1, ""),
        ] {
            assert_eq!(fitted(line, columns), expected, "{line} in {columns}");
        }
    }

    #[test]
    fn no_color_with_a_value_forbids_drawing() {
        assert_eq!(
            [None, Some(""), Some("1"), Some("0")].map(|set| allows(set.map(OsStr::new))),
            [true, true, false, false]
        );
    }
}

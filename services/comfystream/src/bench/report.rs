//! Where do the figures go? To JSON, to a page between its markers, to a terminal.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The value below which this share of the sorted values lies.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// With as many digits as mean anything.
pub(super) fn number(value: f64) -> Value {
    let digits = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
        .parse::<f64>()
        .map_or(Value::Null, |value| json!(value))
}

/// One line that the next replaces; nothing where nobody looks.
pub(super) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r   {text:<70}\r");
    }
}

/// A table of texts.
pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    pub(super) fn new(heads: &[&str]) -> Self {
        Self(vec![heads.iter().map(|head| (*head).to_owned()).collect()])
    }

    pub(super) fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    /// For a page.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, line) in self.0.iter().enumerate() {
            text += &format!("| {} |\n", line.join(" | "));
            if number == 0 {
                text += &format!("|---|{}\n", "---:|".repeat(line.len() - 1));
            }
        }
        text
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let columns = self.0[0].len();
        let width = |column: usize| {
            self.0
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in &self.0 {
            for (cell, width) in line.iter().zip(&widths) {
                text += &format!("{cell:>width$}  ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// Writes a file, and the folder it lies in.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// Puts each of `tables` between `<!-- begin NAME -->` and `<!-- end NAME -->`, and the machine at `machine`.
pub(super) fn page(path: &Path, report: &Value) -> Result<()> {
    let mut text = std::fs::read_to_string(path)?;
    let tables = report["tables"].as_object().into_iter().flatten();
    for (name, table) in tables {
        text = replaced(&text, name, table.as_str().unwrap_or_default())
            .with_context(|| format!("{} has no markers for {name}", path.display()))?;
    }
    text = replaced(&text, "machine", &super::machine::line(report)).context("no markers for machine")?;
    write(path, &text)
}

fn replaced(text: &str, name: &str, inside: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let from = text.find(&begin)? + begin.len();
    let to = from + text[from..].find(&end)?;
    Some(format!("{}{}\n{}", &text[..from], inside.trim_end(), &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let page = "Why?\n<!-- begin a -->\nold\n<!-- end a -->\nLimits.\n";
        let made = replaced(page, "a", "| new |").unwrap();
        assert_eq!(made, "Why?\n<!-- begin a -->\n| new |\n<!-- end a -->\nLimits.\n");
        assert_eq!(replaced(&made, "a", "old").unwrap(), page);
        assert_eq!(replaced(page, "b", ""), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.5), 500.0);
        assert_eq!(percentile(&sorted, 0.999), 999.0);
        assert_eq!(percentile(&sorted, 1.0), 1000.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
    }
}

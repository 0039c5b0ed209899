//! Columns, and times in them.

use console::{measure_text_width, style};

/// Columns as wide as their widest cell; the last is not padded. On a terminal the head is bold, and what is well or ill has
/// the colour of that (`NO_COLOR` forbids it).
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let widest = |column: usize| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = head.iter().enumerate().map(|(column, name)| widest(column).max(name.len())).collect();
    let head = head.iter().map(|&name| (name, style(name).bold().to_string()));
    let mut lines = vec![line(head, &widths)];
    lines.extend(rows.iter().map(|row| line(row.iter().map(|cell| (cell.as_str(), paint(cell))), &widths)));
    lines.join("\n")
}

/// One line of cells, each as it is measured and as it is painted.
fn line<'a>(cells: impl Iterator<Item = (&'a str, String)>, widths: &[usize]) -> String {
    let padded = cells.zip(widths).map(|((plain, painted), width)| {
        let padding = width.saturating_sub(measure_text_width(plain));
        format!("{painted}{:padding$}  ", "")
    });
    padded.collect::<String>().trim_end().to_owned()
}

fn paint(cell: &str) -> String {
    match cell {
        "ok" | "live" | "yes" | "valid" => style(cell).green().to_string(),
        "warn" | "no" | "disabled" => style(cell).yellow().to_string(),
        "FAIL" | "ABSENT" => style(cell).red().bold().to_string(),
        _ => cell.to_owned(),
    }
}

/// A time for people, in UTC.
pub(super) fn date(ms: u64) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'static>] =
        time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    i64::try_from(ms / 1000)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["cccc".to_owned(), String::new()]];
        assert_eq!(table(&["X", "Y"], rows.into_iter()), "X     Y\na     bb\ncccc");
    }

    #[test]
    fn dates_are_for_people() {
        assert_eq!(date(1_700_000_000_000), "2023-11-14 22:13 UTC");
    }
}

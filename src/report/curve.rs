//! Curves as text: one or two series over the same steps, drawn with characters.

use super::numbers::quantity;

/// One named series of points (step, value), steps ascending.
#[derive(Clone, Debug)]
pub struct Series<'run> {
    /// The name in the legend.
    pub name: &'run str,
    /// The character that draws it.
    pub mark: char,
    /// The points.
    pub points: &'run [(u64, f64)],
}

/// Draws `series` in `width` × `height` characters, axis labels included; empty without points.
///
/// Each column shows the mean of the points that fall into it.
pub fn draw(series: &[Series<'_>], width: usize, height: usize) -> String {
    let points = || series.iter().flat_map(|one| one.points).filter(|(_, value)| value.is_finite());
    let Some(last) = points().map(|(step, _)| *step).max() else { return String::new() };
    let low = points().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let high = points().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let labels = [quantity(high), quantity(low)];
    let margin = labels.iter().map(String::len).max().unwrap_or(0);
    let columns = width.saturating_sub(margin + 3).max(10);
    let mut grid = vec![vec![' '; columns]; height];
    for one in series {
        for (column, value) in means(one.points, last, columns) {
            let up = if high > low { (value - low) / (high - low) } else { 0.0 };
            let row = height - 1 - cell(up, height);
            grid[row][column] = if matches!(grid[row][column], ' ') { one.mark } else { '◆' };
        }
    }
    render(&grid, &labels, margin, last) + &legend(series)
}

fn render(grid: &[Vec<char>], labels: &[String; 2], margin: usize, last: u64) -> String {
    let mut text = String::new();
    for (row, cells) in grid.iter().enumerate() {
        let label = match row {
            0 => labels[0].as_str(),
            _ if row + 1 == grid.len() => labels[1].as_str(),
            _ => "",
        };
        let cells: String = cells.iter().collect();
        text += &format!("  {label:>margin$} │{}\n", cells.trim_end());
    }
    let columns = grid.first().map_or(0, Vec::len);
    let end = format!("step {last}");
    let line = columns.saturating_sub(end.len() + 1);
    text + &format!("  {:>margin$} └{} {end}\n", "", "─".repeat(line))
}

fn legend(series: &[Series<'_>]) -> String {
    let names: Vec<String> =
        series.iter().map(|one| format!("{} {}", one.mark, one.name)).collect();
    let both = if series.len() > 1 { "   ◆ both" } else { "" };
    format!("  {}{both}\n", names.join("   "))
}

/// The mean of the points in each column that has any.
fn means(points: &[(u64, f64)], last: u64, columns: usize) -> Vec<(usize, f64)> {
    let mut sums = vec![(0.0, 0u32); columns];
    for (step, value) in points.iter().filter(|(_, value)| value.is_finite()) {
        let column = cell(*step as f64 / last.max(1) as f64, columns);
        sums[column].0 += value;
        sums[column].1 += 1;
    }
    let mean = |(column, (sum, count)): (usize, (f64, u32))| {
        (count > 0).then(|| (column, sum / f64::from(count)))
    };
    sums.into_iter().enumerate().filter_map(mean).collect()
}

#[expect(clippy::cast_sign_loss, reason = "shares lie in 0..=1")]
fn cell(share: f64, cells: usize) -> usize {
    ((share * (cells - 1) as f64).round() as usize).min(cells - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_line_falls() {
        let points: Vec<(u64, f64)> = (0..=10).map(|step| (step, 10.0 - step as f64)).collect();
        let text = draw(&[Series { name: "a", mark: '•', points: &points }], 30, 5);
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].trim_start().starts_with("10 │•"), "{text}");
        assert!(rows[4].trim_start().starts_with("0 │") && rows[4].ends_with('•'), "{text}");
        assert_eq!(draw(&[], 30, 5), "");
    }
}

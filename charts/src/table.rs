//! Tables.

use maud::{Markup, html};

/// A table whose first column names its rows; wide ones scroll on their own. `name` says what it is
/// to a screen reader and is its own on the page; `caption` may be empty.
pub fn table(
    name: &str,
    caption: &str,
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<Markup>>,
) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label=(name) {
            table {
                @if !caption.is_empty() { caption { (caption) } }
                thead { tr { @for header in headers { th scope="col" { (header) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (i, cell) in row.into_iter().enumerate() {
                                @if i == 0 { th scope="row" { (cell) } }
                                @else { td.number { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

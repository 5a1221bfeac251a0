//! What all pages share: the frame around them, notices, tables that scroll, links to entities, and
//! how numbers read.

use axum::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::metrics::Failed;
use crate::layout::assets;
use crate::paths;

/// Hexadecimal digits of a model's hash that are shown.
const VERSION_DIGITS: usize = 12;

/// The pages that are always a step away.
const NAVIGATION: [(&str, &str); 7] = [
    (paths::FORM, "Predict"),
    ("/flights/search", "Flights"),
    ("/airlines", "Airlines"),
    ("/airplanes", "Airplanes"),
    ("/airports", "Airports"),
    ("/delays", "Delays"),
    ("/model", "Model"),
];

/// A page: its title, what it adds to the head, and its content.
pub(crate) fn frame(title: &str, head: Markup, main: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Tarmac" }
                link rel="icon" type="image/svg+xml" href=(assets::ICON.url());
                link rel="stylesheet" href=(assets::STYLE.url());
                script src=(assets::SCRIPT.url()) defer {}
                (head)
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" {
                        img src=(assets::ICON.url()) alt="" width="28" height="28";
                        span { "Tarmac" }
                    }
                    nav aria-label="Pages" {
                        ul { @for (path, name) in NAVIGATION { li { a href=(path) { (name) } } } }
                    }
                }
                main #main { (main) }
                footer.bottom {
                    p { a href="/total_flights" { "Flights by month" } " · "
                        a href="/routes" { "Routes" } " · "
                        a href="/flights/delays/predict_batch" { "Predict overnight" } " · "
                        a href="/api" { "For programs" } }
                }
            }
        }
    }
}

/// A page with a heading and an introduction.
pub(crate) fn page(title: &str, intro: Markup, content: Markup) -> Markup {
    let main = html! {
        header.intro { h1 { (title) } p { (intro) } }
        (content)
    };
    frame(title, html! {}, main)
}

/// A page that says one thing, with its status.
pub(crate) fn notice(status: StatusCode, title: &str, text: &str) -> Response {
    let main = html! {
        article.card.notice {
            p.status { (status.as_u16()) }
            h1 { (title) }
            p { (text) }
            p { a.button href=(paths::FORM) { "Ask about a flight" } }
        }
    };
    // for who wants no page
    let said = Extension(Said(text.to_owned()));
    (status, said, frame(title, html! {}, main)).into_response()
}

/// What a notice says, for programs.
#[derive(Debug, Clone)]
pub(crate) struct Said(pub(crate) String);

/// Why a page cannot be shown; becomes a notice.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store did not answer; the log says why.
    Store(anyhow::Error),
    /// There is no such thing.
    NotFound(&'static str),
    /// Too many search.
    Busy,
    /// The search was given up.
    TooLong,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Store(error) => {
                tracing::error!("cannot read what the page is made of: {error:#}");
                let text = "The database behind this page did not answer. Please try again.";
                let page = notice(StatusCode::SERVICE_UNAVAILABLE, "Not available", text);
                (Extension(Failed::Store), page).into_response()
            }
            Self::Busy => {
                let text = "Others, or you, are searching already. Please try again in a moment.";
                notice(StatusCode::SERVICE_UNAVAILABLE, "One moment", text)
            }
            Self::TooLong => {
                let text = "This search takes too long. With more fields, such as a date, it is \
                            quick.";
                notice(StatusCode::SERVICE_UNAVAILABLE, "Too much to search", text)
            }
            Self::NotFound(text) => notice(StatusCode::NOT_FOUND, "Nothing is known of it", text),
        }
    }
}

/// The head of a column.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Head<'a> {
    /// Of texts.
    Text(&'a str),
    /// Of numbers, which are set to the right.
    Number(&'a str),
}

/// A table that scrolls sideways by itself when it is wider than the screen.
pub(crate) fn table(caption: &str, heads: &[Head<'_>], rows: Markup) -> Markup {
    html! {
        // reached by the keyboard, so that it can be scrolled by it
        div.table tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { span { (caption) } }
                thead { tr { @for head in heads {
                    @match head {
                        Head::Text(name) => th scope="col" { (name) },
                        Head::Number(name) => th.number scope="col" { (name) },
                    }
                } } }
                tbody { (rows) }
            }
        }
    }
}

/// What is known, as terms with their descriptions.
pub(crate) fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl.facts { @for (term, is) in facts { div { dt { (term) } dd { (is) } } } }
    }
}

pub(crate) fn airline(code: &str) -> Markup {
    html! { a href={ "/airline/" (url_text(code)) } { (code) } }
}

pub(crate) fn airplane(tail_number: &str) -> Markup {
    html! { a href={ "/airplane/" (url_text(tail_number)) } { (tail_number) } }
}

pub(crate) fn airport(code: &str) -> Markup {
    html! { a href={ "/airport/" (url_text(code)) } { (code) } }
}

/// The version of a model: its first digits, and all of them as title.
pub(crate) fn version(version: &str) -> Markup {
    let digits: String = version.chars().take(VERSION_DIGITS).collect();
    html! { code.version title=(version) { (digits) } }
}

/// Minutes with one decimal, and a true minus sign; a dash for what cannot be said.
pub(crate) fn minutes(minutes: Option<f64>) -> String {
    match minutes {
        Some(m) if m.is_finite() => {
            // what rounds to zero has no sign
            let text = format!("{m:.1} min");
            if text == "-0.0 min" { "0.0 min".to_owned() } else { text.replace('-', "−") }
        }
        _ => "–".into(),
    }
}

/// What is written as it is in the query of a URL, beside letters and digits.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A text as it stands in the query of a URL.
pub(crate) fn url_text(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_encoded_in_addresses_and_shown_as_they_are() {
        let link = airline("PA (1)").into_string();
        assert!(
            link.starts_with("<a href=\"/airline/PA%20") && link.ends_with(">PA (1)</a>"),
            "{link}"
        );
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([minutes(Some(-2.25)), minutes(None)], ["−2.2 min", "–"]);
        assert_eq!([minutes(Some(-0.04)), minutes(Some(-0.06))], ["0.0 min", "−0.1 min"]);
    }
}

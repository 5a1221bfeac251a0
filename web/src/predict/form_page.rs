//! The page that asks: the form with its answer beside it. Everything works without the script,
//! which only spares a reload.

use events::Answer;
use maud::{Markup, html};

use crate::layout::page::frame;
use crate::paths;
use crate::predict::card;
use crate::predict::choices::{Choice, Choices};
use crate::predict::explanation::Explanation;
use crate::predict::form::{Errors, FormInput};

/// Reloads of a page without script: as many, at this pace, as an event stream lives (5 min).
const REFRESHES_MAX: u32 = 150;
/// Seconds between two reloads of a page without script.
const REFRESH_SECONDS: u32 = 2;

/// What is known about the request that the page is about.
pub(crate) enum Asked {
    /// Nothing was asked.
    Nothing,
    /// No answer yet; the page was reloaded so many times. Of what this process has sent it is
    /// known that somebody asked.
    Waiting { id: uuid::Uuid, n_refreshes: u32, is_known: bool },
    /// Nothing, and what is asked will be answered overnight.
    Overnight,
    /// The answer, and what is known beside it.
    Answered(Box<Answer>, Explanation),
}

/// Everything that the form's page shows.
pub(crate) struct View<'a> {
    pub(crate) typed: &'a FormInput,
    pub(crate) errors: &'a Errors,
    /// Why the request could not be sent; empty when there was no such failure.
    pub(crate) failure: &'a str,
    pub(crate) choices: &'a Choices,
    pub(crate) asked: Asked,
}

/// How a field is typed.
enum Kind {
    Text,
    Date,
    Listed(&'static str),
}

struct Field {
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    kind: Kind,
}

const AIRLINE_LIST: &str = "airlines";
const AIRPORT_LIST: &str = "airports";

/// The form, top to bottom.
const FIELDS: [Field; 6] = [
    Field {
        name: "Origin",
        label: "From",
        hint: "Airport code, or search by name",
        kind: Kind::Listed(AIRPORT_LIST),
    },
    Field {
        name: "Dest",
        label: "To",
        hint: "Airport code, or search by name",
        kind: Kind::Listed(AIRPORT_LIST),
    },
    Field {
        name: "Carrier",
        label: "Carrier",
        hint: "Code, or search by name",
        kind: Kind::Listed(AIRLINE_LIST),
    },
    Field { name: "FlightDate", label: "Date", hint: "Local date of departure", kind: Kind::Date },
    Field {
        name: "DepDelay",
        label: "Departure delay",
        hint: "Minutes; negative when early",
        kind: Kind::Text,
    },
    Field { name: "FlightNum", label: "Flight number", hint: "Optional", kind: Kind::Text },
];

/// The form with the state of its request.
pub(crate) fn form_page(view: &View) -> Markup {
    let answered = !matches!(view.asked, Asked::Nothing | Asked::Overnight);
    let (title, intro) = match view.asked {
        Asked::Overnight => (
            "Predict overnight",
            "Leave a question for the night. The questions of a day are answered together, by the \
             same model.",
        ),
        _ => (
            "Will this flight arrive late?",
            "Tell us how the flight departs. The question travels through Kafka to a model that is \
             scoring a live stream, and the answer comes back here.",
        ),
    };
    let main = html! {
        header.intro { h1 { (title) } p { (intro) } }
        div.columns {
            // on a narrow screen the answer comes first once there is a request
            @if answered { (answer_section(&view.asked)) (question(view)) }
            @else { (question(view)) (answer_section(&view.asked)) }
        }
        template #waiting { (card::waiting(true)) }
    };
    frame(title, refresh(view), main)
}

/// Without script a waiting page reloads itself, a bounded number of times.
fn refresh(view: &View) -> Markup {
    match &view.asked {
        Asked::Waiting { id, n_refreshes, .. } if *n_refreshes < REFRESHES_MAX => {
            let (next, question) = (n_refreshes + 1, view.typed.query());
            let path = paths::FORM;
            let content = format!("{REFRESH_SECONDS};url={path}?id={id}&refresh={next}&{question}");
            html! { noscript { meta http-equiv="refresh" content=(content); } }
        }
        _ => html! {},
    }
}

fn answer_section(asked: &Asked) -> Markup {
    let (waiting_for, card) = match asked {
        Asked::Nothing => (None, card::invitation()),
        Asked::Overnight => (None, card::tomorrow()),
        Asked::Waiting { n_refreshes: REFRESHES_MAX.., .. } => (None, card::late()),
        Asked::Waiting { id, is_known, .. } => (Some(id), card::waiting(*is_known)),
        Asked::Answered(answer, explanation) => (None, card::answer(answer, explanation)),
    };
    html! {
        section #answer aria-live="polite" aria-label="Answer" data-waiting-for=[waiting_for] {
            (card)
        }
    }
}

fn question(view: &View) -> Markup {
    let first_bad = FIELDS.iter().map(|f| f.name).find(|name| view.errors.contains_key(name));
    let is_live = !matches!(view.asked, Asked::Overnight);
    let path = if is_live { paths::ASK } else { paths::NIGHTLY_ASK };
    html! {
        // the script waits for answers that come at once
        form #question data-ask[is_live] method="post" action=(path)
            data-page=(paths::FORM) novalidate {
            p #failure.failure role="alert" hidden[view.failure.is_empty()] { (view.failure) }
            div.fields {
                @for field in &FIELDS { (input(field, view, first_bad)) }
            }
            button type="submit" {
                @if is_live { "Predict the arrival" } @else { "Ask overnight" }
            }
            (choice_lists(view.choices))
        }
    }
}

fn input(field: &Field, view: &View, first_bad: Option<&str>) -> Markup {
    let Field { name, label, hint, ref kind } = *field;
    let error = view.errors.get(name);
    let list = if let Kind::Listed(list) = kind { Some(list) } else { None };
    html! {
        div class={ "field " (name) } {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(view.typed.get(name)) autocomplete="off"
                type=(if matches!(kind, Kind::Date) { "date" } else { "text" })
                list=[list]
                spellcheck="false"
                aria-describedby={ (name) "-error " (name) "-hint" }
                aria-invalid=[error.map(|_| "true")]
                required[name != "FlightNum"]
                autofocus[first_bad == Some(name)];
            p.error id={ (name) "-error" } hidden[error.is_none()] {
                (error.map_or("", String::as_str))
            }
            p.hint id={ (name) "-hint" } { (hint) }
        }
    }
}

/// The lists that inputs complete from.
pub(crate) fn choice_lists(choices: &Choices) -> Markup {
    html! {
        (choice_list(AIRLINE_LIST, &choices.airlines))
        (choice_list(AIRPORT_LIST, &choices.airports))
    }
}

fn choice_list(id: &str, choices: &[Choice]) -> Markup {
    html! {
        datalist id=(id) {
            @for choice in choices { option value=(choice.code) { (choice.name) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn render(typed: &FormInput, errors: &Errors, asked: Asked) -> String {
        let choices = Choices {
            airlines: vec![Choice { code: "UA".into(), name: "United <Air> Lines".into() }],
            airports: vec![],
        };
        form_page(&View { typed, errors, failure: "", choices: &choices, asked }).into_string()
    }

    #[test]
    fn what_was_typed_comes_back_escaped_with_its_message_next_to_it() {
        let typed =
            FormInput { origin: "\"><script>alert(1)</script>".into(), ..FormInput::default() };
        let errors = Errors::from([("Origin", "Origin is <b>wrong</b>".to_owned())]);
        let page = render(&typed, &errors, Asked::Nothing);
        assert!(page.contains("value=\"&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\""));
        assert_eq!(page.matches("<script").count(), 1, "only the page's own");
        assert!(page.contains("id=\"Origin-error\">Origin is &lt;b&gt;wrong&lt;/b&gt;</p>"));
        assert_eq!(page.matches("aria-invalid=\"true\"").count(), 1);
        assert!(page.contains("id=\"Dest-error\" hidden>"));
        assert!(page.contains("<option value=\"UA\">United &lt;Air&gt; Lines</option>"));
    }

    #[test]
    fn a_waiting_page_reloads_without_script_until_it_is_late() {
        let id = Uuid::from_u128(1);
        let asked = |n_refreshes| Asked::Waiting { id, n_refreshes, is_known: true };
        let page = render(&FormInput::default(), &Errors::new(), asked(0));
        assert!(page.contains(&format!("content=\"2;url=/flights/delays/predict_kafka?id={id}")));
        assert!(page.contains("&amp;refresh=1&amp;"));
        assert!(page.contains(&format!("data-waiting-for=\"{id}\"")));
        let page = render(&FormInput::default(), &Errors::new(), asked(REFRESHES_MAX));
        assert!(!page.contains("http-equiv") && !page.contains("data-waiting-for"));
        assert!(page.contains("No answer yet"));
    }

    #[test]
    fn the_policy_holds_no_inline_script_or_style() {
        let page = render(&FormInput::default(), &Errors::new(), Asked::Nothing);
        for inline in ["style=", "<style", "onclick", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
    }
}

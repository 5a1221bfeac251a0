//! Server-sent events: one event for one request, as soon as its answer exists.
//!
//! The order matters: listen first, then read the store, then wait. An answer that arrives in
//! between is heard; one that was there before is read; one that is missed by both, because the
//! consumer was away, is read at the next look into the store.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use maud::Markup;
use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::sleep;
use tracing::Instrument;
use uuid::Uuid;

use crate::app::{App, stopped};
use crate::http::clients::Client;
use crate::http::responses::{Asker, full, no_uuid};
use crate::predict::answers::{self, Found};
use crate::predict::card;
use crate::predict::heard::Heard;

/// Longest life of a stream. An answer that takes longer means that no job is running.
const STREAM_WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// How often a waiting stream reads the store in case the message was missed: at the bound of
/// 1,000 streams, 100 looks a second.
const STORE_LOOK_EVERY: Duration = Duration::from_secs(10);
/// Comments that keep proxies from closing a silent connection; the usual limit is 60 s.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// GET `/flights/delays/predict/classify_realtime/response/{id}/events`.
///
/// One event, `answer` or, when the longest life is over, `late`; its data is the JSON of the
/// polling route with the HTML of the result, `card`, added. Ends without one on shutdown.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Path(id): Path<String>,
) -> Response {
    let Some(id) = events::parse_uuid(&id) else {
        return no_uuid();
    };
    let share = match app.streams.take(Some(client)) {
        Ok(share) => share,
        Err(why) => return full(Asker::Program, why),
    };
    let event = async move {
        let _share = share;
        tokio::select! {
            event = answer_event(&app, id) => Some(event),
            () = sleep(STREAM_WAIT_MAX) => {
                Some(event("late", answers::state(id, None), card::late()))
            }
            () = stopped(app.stopping.clone()) => None,
        }
    };
    let events = stream::once(event).filter_map(|event| ready(event.map(Ok::<_, Infallible>)));
    let events = Sse::new(events.boxed()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY));
    // nginx would hold the event back until its buffer is full
    ([(HeaderName::from_static("x-accel-buffering"), "no")], events).into_response()
}

async fn answer_event(app: &App, id: Uuid) -> Event {
    let mut receiver = app.heard.subscribe();
    loop {
        if let Some(found) = look(app, id).await {
            return found_event(app, id, &found).await;
        }
        tokio::select! {
            heard = hear(&mut receiver, id) => if let Some(heard) = heard {
                let showing = async {
                    // the store is the truth; the message stands in when it is ahead of the store
                    let stored = look(app, id).await;
                    let found = stored.or_else(|| Found::heard(&heard.answer).ok())?;
                    Some(found_event(app, id, &found).await)
                };
                if let Some(event) = showing.instrument(heard.show()).await {
                    return event;
                }
            },
            () = sleep(STORE_LOOK_EVERY) => {}
        }
    }
}

/// The stored answer; a store that is away counts as none, and is asked again.
async fn look(app: &App, id: Uuid) -> Option<Found> {
    answers::find(&app.store, id).await.unwrap_or_else(|error| {
        tracing::error!(%id, "cannot read the answer: {error:#}");
        None
    })
}

/// Waits until the answer to `id` is heard; none when messages were missed and the store knows
/// more.
async fn hear(receiver: &mut broadcast::Receiver<Arc<Heard>>, id: Uuid) -> Option<Arc<Heard>> {
    loop {
        match receiver.recv().await {
            Ok(heard) if heard.answer.uuid() == id => return Some(heard),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return None,
            // the server is stopping; the stream ends for that reason
            Err(RecvError::Closed) => pending().await,
        }
    }
}

async fn found_event(app: &App, id: Uuid, found: &Found) -> Event {
    let explanation = answers::explain(&app.store, &found.answer).await;
    event("answer", answers::state(id, Some(found)), card::answer(&found.answer, &explanation))
}

fn event(name: &str, mut state: Value, card: Markup) -> Event {
    state["card"] = Value::from(card.into_string());
    Event::default().event(name).data(state.to_string())
}

//! Growing a forest: what a pass over the rows counts ([`pass`], [`histogram`]), the bytes that it
//! travels in ([`counters`]), how counts become splits ([`split`]), what is drawn by lot
//! ([`sampling`]), how sure it may be ([`temperature`]), and all of it over a dataset in memory,
//! for users of `linfa` ([`fit`]).

mod block;
pub mod counters;
pub mod fit;
pub mod histogram;
mod layout;
pub mod pass;
pub mod sampling;
mod small;
pub mod split;
pub mod temperature;
mod walk;

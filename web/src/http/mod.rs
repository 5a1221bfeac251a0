//! What surrounds every route, and the routes for programs and operators.

pub(crate) mod api;
pub(crate) mod cache;
pub(crate) mod clients;
pub(crate) mod connections;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod middleware;
pub(crate) mod rate_limit;
pub(crate) mod responses;
pub(crate) mod static_files;

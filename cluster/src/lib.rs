//! Where the jobs run: the session they run in and the programs that start them. No business
//! logic: what is done is in `jobs` and `sql`.

pub mod cli;
pub mod demo;
pub mod progress;
pub mod run;
pub mod session;
pub mod shell;

//! The programs as a whole, as processes, against real servers.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod airflow;
mod archive;
mod champions;
mod clusters;
mod command_line;
mod configuration;
mod dice;
mod differential;
mod distances;
mod doctor;
mod download;
mod end_to_end;
mod enrich;
mod faults;
mod first_version;
mod leases;
mod live;
mod logs;
mod outages;
mod predict;
mod promise;
mod raw_files;
mod retention;
mod s3;
mod same_answer;
mod secure;
mod servers;
mod setup;
mod statements;
mod tls;
mod torture;
mod traces;
mod traffic;

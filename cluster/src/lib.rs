//! Where jobs run: the session they run in, in this process or on a cluster, and the scheduler and
//! the executors of a cluster. No business logic: what is done is in `jobs` and `sql`, and what
//! people type in `submit-job`.

pub mod codec;
pub mod executor;
pub mod joins;
pub mod local_cluster;
pub mod remote;
pub mod scheduler;
pub mod session;
pub mod settings;
pub mod tls;

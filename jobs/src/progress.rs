//! The progress that a job reports. Jobs print nothing; the caller shows this.

/// A step forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something that a person must know.
    Notice(String),
    /// A stage began.
    Stage(&'static str),
    /// Bytes of the input that were read.
    Bytes {
        /// So far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// A level of the forest is being grown.
    Level {
        /// Trees that grow.
        n_trees: usize,
        /// Levels that are grown.
        done: u32,
        /// In all.
        total: u32,
    },
    /// A collection was published.
    Published {
        /// Its name.
        collection: &'static str,
        /// Documents in it.
        n_documents: u64,
    },
}

/// Takes [`Progress`].
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

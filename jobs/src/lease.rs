//! Who may change the flights of a data root: one job at a time, and none while others read.
//!
//! ```text
//! leases/<epoch>.json       which job has the lease of this epoch, with a beat that it moves
//! leases/<epoch>.swap.json  what that job puts in place: decided once, by whoever makes it
//! readers/<job>.json        a job that reads, with a beat that it moves
//! ```
//!
//! Local disks know no conditional update, but every store can make an object that is not there
//! yet, so that is what decides. The epoch is the fencing token: a job puts files in place by
//! making the swap of its epoch, and whoever takes over a lease that does not beat any more makes
//! that swap first, an empty one. Of the two only one succeeds, so a job that was suspended past
//! its lease puts nothing in place. A swap that was made is carried out by whoever comes next; each
//! step may be done twice, because no name of a file is ever used again.
//!
//! Beats are compared with what was seen before, never with the clock of another machine, and
//! looks are counted, not time: who was suspended itself has not looked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::lake::Lake;
use crate::progress::{OnProgress, Progress};

/// Time between two beats.
const BEAT: Duration = Duration::from_secs(5);
/// Time between two looks at a job that is waited for.
const POLL: Duration = Duration::from_millis(500);
/// Looks that find the same beat after which a job counts as gone, in 30 s: several are missing.
const LOOKS: u32 = 60;
/// How long a job that puts files in place lets others begin to read before it, and how long they
/// wait then. Again and again: one that reads for hours must not hold up all others.
const PATIENCE: Duration = Duration::from_secs(300);
const PRECEDENCE: Duration = Duration::from_secs(60);
/// How often something small is read that is replaced meanwhile.
const READ_AGAIN_MAX: u32 = 10;
/// Leases that are remembered: who is suspended for longer than so many jobs finds its own gone.
const REMEMBERED: u64 = 100;
/// What a job hears that was suspended past its lease.
const SUSPENDED: &str = "this job was silent for so long that another one has taken over its \
                         lease; nothing was replaced: run it again";
/// Largest object of this module, in bytes: a swap names the files of all months.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the relations of a reader are made of.
const READ: [&str; 2] = ["flights/", "distances/"];

/// What a job says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    job: String,
    /// The process, and which of its leases and readings it is: a job that is run again under its
    /// id is another one.
    by: String,
    beat: u64,
    /// It puts files in place, or is about to: nobody begins to read.
    swaps: bool,
    ended: bool,
}

impl Held {
    fn of(job: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let by = format!("{}/{}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed));
        Self { job: job.to_owned(), by, beat: 0, swaps: false, ended: false }
    }

    fn is_ours(&self, job: &str) -> bool {
        let process = self.by.split('/').next();
        self.job == job && process == Some(PROCESS.to_string().as_str())
    }
}

static PROCESS: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

/// Files that are put in place at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// From and to, relative to the data root. No name is used a second time.
    pub moves: Vec<(String, String)>,
    /// What goes.
    pub deletes: Vec<String>,
}

fn lease(epoch: u64) -> String {
    format!("leases/{epoch:010}.json")
}

fn swap(epoch: u64) -> String {
    format!("leases/{epoch:010}.swap.json")
}

fn reader(job: &str) -> String {
    format!("readers/{job}.json")
}

async fn held(lake: &Lake, path: &str) -> Result<Option<Held>> {
    let Some(bytes) = lake.get(path, BYTES_MAX).await? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes).with_context(|| lake.url(path))?))
}

async fn put(lake: &Lake, path: &str, held: &Held) -> Result<()> {
    lake.put(path, serde_json::to_vec(held)?).await
}

/// The last lease; `None` when there was none yet.
async fn last(lake: &Lake) -> Result<Option<(u64, Held)>> {
    let names = lake.list("leases/").await?;
    let epochs = names.iter().filter_map(|name| {
        name.strip_prefix("leases/")?.strip_suffix(".json")?.parse::<u64>().ok()
    });
    let Some(epoch) = epochs.max() else { return Ok(None) };
    let held = held(lake, &lease(epoch)).await?;
    Ok(held.map(|held| (epoch, held)))
}

/// The last lease, when its job puts files in place, or died while it did.
async fn changing(lake: &Lake) -> Result<Option<(u64, Held)>> {
    Ok(last(lake).await?.filter(|(_, held)| held.swaps && !held.ended))
}

/// The job that has the lease, or had it when it died: what it has staged may be needed.
pub async fn holder(lake: &Lake) -> Result<Option<String>> {
    Ok(last(lake).await?.filter(|(_, held)| !held.ended).map(|(_, held)| held.job))
}

/// Ends a lease whose job is gone: carries out its swap, or sees to it that it makes none any more.
async fn settle(lake: &Lake, epoch: u64, held: &Held) -> Result<()> {
    lake.create_object(&swap(epoch), serde_json::to_vec(&Swap::default())?).await?;
    let bytes = lake.get(&swap(epoch), BYTES_MAX).await?.unwrap_or_default();
    let made: Swap = serde_json::from_slice(&bytes).with_context(|| lake.url(&swap(epoch)))?;
    if let Some(lost) = carry_out(lake, &made).await? {
        // nothing was deleted yet, so that what was there is whole without what was moved
        for (_, to) in &made.moves {
            lake.delete_if_there(to).await?;
        }
        let job = &held.job;
        tracing::warn!(job, lost, "what a job had decided is undone: a staged file is gone");
    }
    // nobody moves the rest any more
    let staged = format!("staging/{}/{epoch}/", held.job);
    if let Err(error) = lake.delete_below(&staged).await {
        tracing::warn!(error = format!("{error:#}"), "what a job had staged is left behind");
    }
    end(lake, epoch, held).await
}

/// Carries out a swap. Each step may have been done by somebody else. Returns a staged file that is
/// gone although it was not moved; then nothing is deleted.
async fn carry_out<'a>(lake: &Lake, made: &'a Swap) -> Result<Option<&'a str>> {
    for (from, to) in &made.moves {
        if !lake.rename_if_there(from, to).await? && lake.stamp(to).await?.is_none() {
            return Ok(Some(from));
        }
    }
    for name in &made.deletes {
        lake.delete_if_there(name).await?;
    }
    Ok(None)
}

async fn end(lake: &Lake, epoch: u64, held: &Held) -> Result<()> {
    put(lake, &lease(epoch), &Held { ended: true, swaps: false, ..held.clone() }).await
}

/// Tells who beats and who does not, by looking again and again.
#[derive(Default)]
struct Watch {
    seen: Option<Held>,
    n_looks: u32,
}

impl Watch {
    /// Whether a job has said the same for longer than it may be silent.
    fn has_expired(&mut self, held: &Held) -> bool {
        if self.seen.as_ref() == Some(held) {
            self.n_looks += 1;
        } else {
            (self.seen, self.n_looks) = (Some(held.clone()), 0);
        }
        self.n_looks >= LOOKS
    }
}

/// Waits a little, and says for whom, once for each.
#[derive(Default)]
struct Wait {
    told: String,
}

impl Wait {
    async fn for_job(&mut self, on_progress: OnProgress<'_>, job: &str, what: &str) {
        let text = format!("waiting for job {job}, which {what}");
        if text != self.told {
            on_progress(Progress::Notice(text.clone()));
            self.told = text;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Moves the beat of what a job says at `path`, until it is ended or the set is dropped.
fn beats(lake: &Lake, path: String, held: Arc<Mutex<Held>>) -> JoinSet<()> {
    let (lake, mut beats) = (lake.clone(), JoinSet::new());
    beats.spawn(async move {
        loop {
            tokio::time::sleep(BEAT).await;
            // held while it is written: what is older must not be written later
            let mut held = held.lock().await;
            if held.ended {
                return;
            }
            held.beat += 1;
            // one that is missed is followed by others
            if let Err(error) = put(&lake, &path, &held).await {
                tracing::debug!(error = format!("{error:#}"), "no beat is written");
            }
        }
    });
    beats
}

/// Changes the data root for `job`: `make` stages files below the directory it is given, under the
/// epoch of the lease, and says what becomes of them. Waits while another job has the lease.
pub async fn change<T>(
    lake: &Lake,
    job: &str,
    on_progress: OnProgress<'_>,
    make: impl AsyncFnOnce(&str, u64) -> Result<(T, Swap)>,
) -> Result<T> {
    let lease = Lease::take(lake, job, on_progress).await?;
    // of its own, also where another process runs under the same name
    let staging = format!("staging/{job}/{}/", lease.epoch);
    match make(&staging, lease.epoch).await {
        Ok((what, made)) => {
            // when it fails, who comes next may need what is staged
            lease.swap(&made, on_progress).await?;
            if let Err(error) = lake.delete_below(&staging).await {
                let text = format!("what was staged is left behind: {error:#}");
                on_progress(Progress::Notice(text));
            }
            Ok(what)
        }
        Err(error) => {
            // what went wrong first is what is told
            _ = lake.delete_below(&staging).await.and(lease.end().await);
            Err(error)
        }
    }
}

/// Moves of all that is staged to a directory. The epoch of the lease makes the names new.
pub async fn moves(
    lake: &Lake,
    job: &str,
    epoch: u64,
    staged: &str,
    directory: &str,
) -> Result<Vec<(String, String)>> {
    let names = lake.list(staged).await?.into_iter().enumerate();
    let new = |i: usize| format!("{directory}{job}-{epoch}-{i}.parquet");
    Ok(names.map(|(i, name)| (name, new(i))).collect())
}

/// The lease of a job that changes the data root, as long as it beats.
pub struct Lease {
    lake: Lake,
    epoch: u64,
    held: Arc<Mutex<Held>>,
    _beats: JoinSet<()>,
}

impl Lease {
    /// Takes the lease for `job`; waits while another one has it, and says so.
    pub async fn take(lake: &Lake, job: &str, on_progress: OnProgress<'_>) -> Result<Self> {
        let (mut watch, mut wait) = (Watch::default(), Wait::default());
        loop {
            let epoch = match last(lake).await? {
                None => 1,
                Some((epoch, held)) if held.ended => epoch + 1,
                Some((epoch, held)) if watch.has_expired(&held) => {
                    let text = format!("job {} is silent; its lease is taken over", held.job);
                    on_progress(Progress::Notice(text));
                    settle(lake, epoch, &held).await?;
                    epoch + 1
                }
                Some((_, held)) => {
                    wait.for_job(on_progress, &held.job, "changes the data root").await;
                    continue;
                }
            };
            let ours = Held::of(job);
            let is_made = lake.create_object(&lease(epoch), serde_json::to_vec(&ours)?).await?;
            // a store that did not answer may have made it
            if is_made || held(lake, &lease(epoch)).await?.as_ref() == Some(&ours) {
                forget(lake, epoch).await?;
                let held = Arc::new(Mutex::new(ours));
                let beats = beats(lake, lease(epoch), Arc::clone(&held));
                return Ok(Self { lake: lake.clone(), epoch, held, _beats: beats });
            }
        }
    }

    /// The fencing token. Part of the names of files that the job puts in place.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Puts files in place when nobody reads, all of them or none.
    ///
    /// Errors when another job has taken over the lease meanwhile; then nothing was put in place.
    pub async fn swap(self, made: &Swap, on_progress: OnProgress<'_>) -> Result<()> {
        self.wait_for_readers(on_progress).await?;
        let (path, bytes) = (swap(self.epoch), serde_json::to_vec(made)?);
        // what was taken over long ago may be forgotten
        let is_last = last(&self.lake).await?.is_some_and(|(epoch, _)| epoch == self.epoch);
        ensure!(is_last && self.decide(&path, bytes).await?, SUSPENDED);
        if let Some(lost) = carry_out(&self.lake, made).await? {
            bail!(
                "{} is gone, which was staged; who comes next undoes the rest",
                self.lake.url(lost)
            );
        }
        self.end().await
    }

    /// Makes the swap; `false` when somebody else has.
    async fn decide(&self, path: &str, bytes: Vec<u8>) -> Result<bool> {
        let made = self.lake.create_object(path, bytes.clone()).await;
        if matches!(made, Ok(true)) {
            return Ok(true);
        }
        // a store that did not answer may have made it
        let is_ours = self.lake.get(path, BYTES_MAX).await? == Some(bytes);
        made.map(|_| is_ours).or_else(|error| if is_ours { Ok(true) } else { Err(error) })
    }

    /// Gives it back.
    pub async fn end(self) -> Result<()> {
        let mut held = self.held.lock().await;
        // no beat comes after it
        held.ended = true;
        end(&self.lake, self.epoch, &held).await
    }

    /// Returns when nobody reads and nobody begins to. Those who come meanwhile go first, but not
    /// for ever.
    async fn wait_for_readers(&self, on_progress: OnProgress<'_>) -> Result<()> {
        let (started, mut wait) = (Instant::now(), Wait::default());
        let mut watches = BTreeMap::<String, Watch>::new();
        loop {
            // first this, then the look: who reads does it the other way round
            self.tell(true).await?;
            let mut reads = None;
            for name in self.lake.list("readers/").await? {
                let Some(held) = held(&self.lake, &name).await? else { continue };
                if watches.entry(name.clone()).or_default().has_expired(&held) {
                    self.lake.delete_if_there(&name).await?;
                } else {
                    reads = Some(held.job);
                }
            }
            let Some(job) = reads else { return Ok(()) };
            let round = (PATIENCE + PRECEDENCE).as_secs();
            if started.elapsed().as_secs() % round < PATIENCE.as_secs() {
                self.tell(false).await?;
            }
            wait.for_job(on_progress, &job, "reads the flights").await;
        }
    }

    async fn tell(&self, swaps: bool) -> Result<()> {
        let mut held = self.held.lock().await;
        if held.swaps != swaps {
            held.swaps = swaps;
            put(&self.lake, &lease(self.epoch), &held).await?;
        }
        Ok(())
    }
}

/// Deletes what is long before an epoch.
async fn forget(lake: &Lake, epoch: u64) -> Result<()> {
    let oldest = lease(epoch.saturating_sub(REMEMBERED));
    for name in lake.list("leases/").await?.iter().take_while(|name| **name < oldest) {
        lake.delete_if_there(name).await?;
    }
    Ok(())
}

/// Gives back what a job of this process still has that failed or was cancelled.
pub async fn release(lake: &Lake, job: &str) -> Result<()> {
    if held(lake, &reader(job)).await?.is_some_and(|held| held.is_ours(job)) {
        lake.delete_if_there(&reader(job)).await?;
    }
    match last(lake).await? {
        Some((epoch, held)) if held.is_ours(job) && !held.ended => settle(lake, epoch, &held).await,
        _ => Ok(()),
    }
}

/// Returns when no files are being put in place; does it where a job died that did.
async fn wait_until_whole(lake: &Lake, on_progress: OnProgress<'_>) -> Result<()> {
    let (mut watch, mut wait) = (Watch::default(), Wait::default());
    while let Some((epoch, held)) = changing(lake).await? {
        if watch.has_expired(&held) {
            let settled = settle(lake, epoch, &held).await;
            let dead = || format!("job {} died while it put flights in place", held.job);
            return settled.with_context(dead);
        }
        wait.for_job(on_progress, &held.job, "changes the data root").await;
    }
    Ok(())
}

/// Does `work`, which reads the root, without keeping others from changing it; `None` when they
/// have meanwhile. For those who cannot write there.
pub async fn read_unpinned<T>(
    lake: &Lake,
    on_progress: OnProgress<'_>,
    work: impl Future<Output = T>,
) -> Result<Option<T>> {
    wait_until_whole(lake, on_progress).await?;
    let before = lake.fingerprint(&READ).await?;
    let worked = work.await;
    let is_whole = changing(lake).await?.is_none();
    Ok((is_whole && lake.fingerprint(&READ).await? == before).then_some(worked))
}

/// The same for what is small: it is read again until nothing was changed meanwhile.
pub async fn read_again<T>(lake: &Lake, read: impl AsyncFn() -> Result<T>) -> Result<T> {
    for _ in 0..READ_AGAIN_MAX {
        let on_progress = |progress| tracing::info!(?progress);
        if let Some(read) = read_unpinned(lake, &on_progress, read()).await? {
            return read;
        }
    }
    bail!("the flights under {} are changed all the time", lake.root())
}

/// A job that reads the data root; nothing is put in place meanwhile.
pub struct Reading {
    lake: Lake,
    job: String,
    /// Of what it reads.
    fingerprint: String,
    held: Arc<Mutex<Held>>,
    _beats: JoinSet<()>,
}

/// Does `work`, which reads the flights, while nothing is put in place.
///
/// Errors also when files were put in place all the same, which takes that this job was suspended.
pub async fn while_reading<T>(
    lake: &Lake,
    job: &str,
    on_progress: OnProgress<'_>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let reading = Reading::begin(lake, job, on_progress).await?;
    let worked = work.await;
    reading.end_with(worked).await
}

impl Reading {
    /// Begins to read; waits while files are put in place, and says so.
    pub async fn begin(lake: &Lake, job: &str, on_progress: OnProgress<'_>) -> Result<Self> {
        let held = Held::of(job);
        loop {
            // first this, then the look: who puts files in place does it the other way round
            put(lake, &reader(job), &held).await?;
            if changing(lake).await?.is_none() {
                break;
            }
            lake.delete_if_there(&reader(job)).await?;
            wait_until_whole(lake, on_progress).await?;
        }
        let held = Arc::new(Mutex::new(held));
        let beats = beats(lake, reader(job), Arc::clone(&held));
        let fingerprint = lake.fingerprint(&READ).await?;
        let (lake, job) = (lake.clone(), job.to_owned());
        Ok(Self { lake, job, fingerprint, held, _beats: beats })
    }

    /// Ends it with what came of it.
    pub async fn end_with<T>(self, worked: Result<T>) -> Result<T> {
        let ended = self.end().await;
        // what went wrong first is what is told
        worked.and_then(|worked| ended.map(|()| worked))
    }

    /// Ends it.
    ///
    /// Errors when files were put in place all the same, which takes that this job was suspended.
    pub async fn end(self) -> Result<()> {
        let is_same = self.lake.fingerprint(&READ).await? == self.fingerprint;
        let mut held = self.held.lock().await;
        // no beat comes after it
        held.ended = true;
        self.lake.delete_if_there(&reader(&self.job)).await?;
        ensure!(
            is_same,
            "the flights were changed while this job read them, because it was silent for too \
             long: run it again"
        );
        Ok(())
    }
}

//! A relay's children as they were last known, kept for its next start (specs/status.md, ST-9).

use crate::server::Shared;
use rootcast::codec;
use rootcast::limits::{CHILDREN_SAVE_GAP, MAX_CHILDREN_FILE};
use rootcast::status::Remembered;
use rootcast_replica::durable::{self, PRIVATE};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The file in a relay's state.
pub(crate) const FILE: &str = "children.cbor";
/// However little changes, the file says at least so often who was there.
const REFRESH: Duration = Duration::from_secs(3600);

/// Takes up what the file says. One that is damaged costs what it said, and nothing else.
pub(crate) fn load(shared: &Shared, path: &Path) {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_CHILDREN_FILE + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => match codec::decode::<Vec<Remembered>>(&bytes, MAX_CHILDREN_FILE) {
            Ok(children) => shared.statuses.restore(children),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "children of before are not known; they show when they come back");
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "children of before could not be read"),
    }
}

/// Keeps the file up, seldom, and forgets who has been offline for long. For ever.
pub(crate) async fn keep(shared: Arc<Shared>, path: PathBuf) {
    let mut written = Instant::now();
    loop {
        tokio::time::sleep(CHILDREN_SAVE_GAP).await;
        shared.statuses.expire();
        let refresh = written.elapsed() >= REFRESH;
        let (saving, path) = (shared.clone(), path.clone());
        let machine = shared.trust.machine();
        if machine.blocking(move || save(&saving, &path, refresh)).await.unwrap_or_default() {
            written = Instant::now();
        }
    }
}

/// Writes the file, if there is something new. Whether it was written.
pub(crate) fn save(shared: &Shared, path: &Path, in_any_case: bool) -> bool {
    let Some(mut children) = shared.statuses.remembered(in_any_case) else { return false };
    let mut bytes = codec::encode(&children);
    while bytes.len() as u64 > MAX_CHILDREN_FILE {
        children.truncate(children.len() / 2);
        bytes = codec::encode(&children);
    }
    match durable::replace(path, &bytes, PRIVATE) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "who our children are could not be kept for the next start");
            false
        }
    }
}

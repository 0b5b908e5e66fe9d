//! The seam at which tests make the disk fail: every system call that changes
//! something asks here first. Outside tests the question costs nothing.

/// What is about to be done to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A new directory.
    MakeDirectory,
    /// A new, empty file.
    Create,
    /// Bytes at the end of a new file.
    Write,
    /// Permission bits.
    SetMode,
    /// A new symbolic link.
    Link,
    /// One name fewer.
    Unlink,
    /// One directory fewer.
    RemoveDirectory,
    /// A name taken by something written elsewhere; the flip is one of these.
    Rename,
    /// One file or directory made durable.
    Sync,
    /// A whole file system made durable.
    SyncAll,
}

#[cfg(not(test))]
#[inline(always)]
pub(super) fn before(_: Step, _: rustix::fd::BorrowedFd<'_>) -> rustix::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use plan::before;

#[cfg(test)]
pub(super) mod plan {
    use super::Step;
    use rustix::fd::BorrowedFd;
    use rustix::io::Errno;
    use std::cell::RefCell;

    /// How the disk fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// Nothing works from then on, as if the process had been killed.
        Crash,
        /// What takes room is refused from then on.
        Full,
    }

    /// A step that was let through: what, and the inode number of the file or directory it changed.
    pub(crate) type Done = (Step, u64);

    #[derive(Default)]
    struct Plan {
        fault: Option<(usize, Fault)>,
        done: Vec<Done>,
    }

    thread_local! {
        static PLAN: RefCell<Plan> = RefCell::default();
    }

    /// Forgets what was done, and fails from the `at`-th step on, counted from 0.
    pub(crate) fn fail_at(at: usize, fault: Fault) {
        PLAN.with_borrow_mut(|plan| *plan = Plan { fault: Some((at, fault)), done: vec![] });
    }

    /// Forgets the fault; returns what was done since the last call.
    pub(crate) fn clear() -> Vec<Done> {
        PLAN.take().done
    }

    pub(crate) fn before(step: Step, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        PLAN.with_borrow_mut(|plan| {
            let takes_room = matches!(step, Step::MakeDirectory | Step::Create | Step::Write | Step::Link);
            match plan.fault {
                Some((at, Fault::Crash)) if plan.done.len() >= at => return Err(Errno::IO),
                Some((at, Fault::Full)) if plan.done.len() >= at && takes_room => {
                    return Err(Errno::NOSPC);
                }
                _ => {}
            }
            plan.done.push((step, rustix::fs::fstat(fd)?.st_ino));
            Ok(())
        })
    }
}

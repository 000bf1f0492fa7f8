//! Forking by way of a process in between.
//!
//! It is only there to be the parent and to end, so it need not be a copy of this one, whose memory may be large: it runs
//! in the same memory, on a stack of its own, while this process waits for its end (as `vfork` does). What it forks is
//! the copy. That begins on the borrowed stack, and changes over to where this process stands.
//!
//! Where the C library cannot change stacks, the process in between is a copy as well.
#![allow(unsafe_code)]

use std::io;

use rustix::process::{Pid, setsid};

use crate::process::{EXIT_QUIETLY, exit_now, fork};

/// Where the caller finds itself.
pub(crate) enum Side {
    /// In the copy.
    Copy,
    /// In the process that was to be copied; the one in between has ended or is about to, with 0 or the reason why it
    /// could not fork.
    Original(Pid),
}

/// In the process in between: ends in it, and returns in what it forks. Nobody goes on before it has ended, so that is
/// never among the processes of the session it comes of.
fn fork_and_end() {
    match setsid().map_err(io::Error::from).and_then(|_| fork()) {
        Ok(None) => {}
        Ok(Some(_)) => exit_now(EXIT_QUIETLY),
        Err(error) => exit_now(error.raw_os_error().unwrap_or(libc::EAGAIN)),
    }
}

#[cfg(not(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(crate) fn cross() -> io::Result<Side> {
    match fork()? {
        Some(between) => Ok(Side::Original(between)),
        None => {
            fork_and_end();
            Ok(Side::Copy)
        }
    }
}

#[cfg(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use shared::cross;

#[cfg(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod shared {
    use std::ffi::{CStr, c_int, c_void};
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::{Pid, Side, fork_and_end, io};

    /// Room for the C library's `fork` and for what libraries do around it.
    const STACK_BYTES: usize = 512 << 10;

    /// The crossing under way; there is one at a time, since only the main thread forks for us.
    static CROSSING: AtomicPtr<Crossing> = AtomicPtr::new(ptr::null_mut());

    /// What both sides and the process in between share.
    struct Crossing {
        /// Where this process waits, and the copy goes on.
        here: libc::ucontext_t,
        /// The process in between, or minus the reason why there is none.
        between: c_int,
        is_copy: bool,
        /// Of what waits for the process in between, and of that itself.
        stacks: [Vec<u8>; 2],
    }

    pub(crate) fn cross() -> io::Result<Side> {
        let held = HeldSignals::hold();
        let stack = || vec![0; STACK_BYTES];
        // SAFETY: a context is plain data; it is written before it is used.
        let here = unsafe { MaybeUninit::zeroed().assume_init() };
        let crossing =
            Box::new(Crossing { here, between: -libc::EAGAIN, is_copy: false, stacks: [stack(), stack()] });
        let crossing = Box::into_raw(crossing);
        CROSSING.store(crossing, Ordering::Relaxed);
        // SAFETY: the crossing lives until both sides are back here, and nobody else has it; each side takes its own
        // copy of it back.
        let (entered, crossing) = unsafe { (enter(crossing), Box::from_raw(crossing)) };
        CROSSING.store(ptr::null_mut(), Ordering::Relaxed);
        if crossing.is_copy {
            renew_sequences();
        }
        drop(held);
        entered?;
        if crossing.is_copy {
            return Ok(Side::Copy);
        }
        let between = crossing.between;
        let between = if between > 0 { Pid::from_raw(between) } else { None };
        between.map(Side::Original).ok_or_else(|| io::Error::from_raw_os_error(-crossing.between))
    }

    /// Leaves this stack; returns once in each process.
    unsafe fn enter(crossing: *mut Crossing) -> io::Result<()> {
        // SAFETY: the context is written by `getcontext` before it is changed; its stack and its successor live in the
        // crossing.
        unsafe {
            let mut aside: libc::ucontext_t = MaybeUninit::zeroed().assume_init();
            check(libc::getcontext(&raw mut aside))?;
            let [stack, _] = &mut (*crossing).stacks;
            aside.uc_stack.ss_sp = stack.as_mut_ptr().cast();
            aside.uc_stack.ss_size = stack.len();
            aside.uc_link = &raw mut (*crossing).here;
            libc::makecontext(&raw mut aside, wait_aside, 0);
            check(libc::swapcontext(&raw mut (*crossing).here, &raw const aside))
        }
    }

    /// On the first stack: waits until the process in between has ended, and goes back by `uc_link`.
    extern "C" fn wait_aside() {
        let crossing = CROSSING.load(Ordering::Relaxed);
        // SAFETY: see `cross`. The stack grows down from its aligned end, and is used by nobody else; the process in
        // between has the memory to itself until it ends, because this one waits for that.
        unsafe {
            let [_, stack] = &mut (*crossing).stacks;
            let end = stack.as_mut_ptr().add(stack.len());
            let end = end.sub(end.addr() % 16).cast::<c_void>();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let between = libc::clone(be_between, end, flags, crossing.cast());
            (*crossing).between = match between {
                -1 => -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN),
                between => between,
            };
        }
    }

    /// On the second stack, in the process in between, and then in the copy.
    extern "C" fn be_between(crossing: *mut c_void) -> c_int {
        fork_and_end();
        let crossing = crossing.cast::<Crossing>();
        // SAFETY: see `cross`: this is the copy, whose memory is its own, and `here` was filled by `swapcontext`.
        unsafe {
            (*crossing).is_copy = true;
            libc::setcontext(&raw const (*crossing).here);
        }
        libc::EFAULT // it does not return unless the context is unusable
    }

    /// The system keeps a word of each thread up to date that says on which processor it runs (`rseq`), and forgets it
    /// for a process that runs in the memory of another, and for what that forks. The C library goes on believing it.
    fn renew_sequences() {
        /// What the C library registers it with.
        #[cfg(target_arch = "x86_64")]
        const SIGNATURE: u32 = 0x5305_3053;
        #[cfg(target_arch = "aarch64")]
        const SIGNATURE: u32 = 0xd428_bc00;
        /// The size of the first version of the area, which every one has at least.
        const BYTES_MIN: u32 = 32;
        let (Some(offset), Some(bytes)) = (symbol(c"__rseq_offset"), symbol(c"__rseq_size")) else { return };
        // SAFETY: the C library says where the area is, as an offset from the thread pointer; its size is 0 if it has
        // registered none. The area lives as long as the thread.
        unsafe {
            let (offset, bytes) = (*offset.cast::<isize>(), *bytes.cast::<u32>());
            if bytes > 0 {
                let area = thread_pointer().wrapping_offset(offset);
                let none: c_int = 0;
                libc::syscall(libc::SYS_rseq, area, bytes.max(BYTES_MIN), none, SIGNATURE);
            }
        }
    }

    fn symbol(name: &CStr) -> Option<*const c_void> {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!found.is_null()).then_some(found.cast_const())
    }

    fn thread_pointer() -> *mut u8 {
        let pointer: *mut u8;
        // SAFETY: reads a register, or the first word of the thread's block, which points to itself.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly));
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem));
        }
        pointer
    }

    /// No signal is taken while this exists: a handler would run in a process that it does not know of.
    struct HeldSignals(libc::sigset_t);

    impl HeldSignals {
        fn hold() -> Self {
            let mut all = MaybeUninit::<libc::sigset_t>::uninit();
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: both sets are written before they are read.
            unsafe {
                libc::sigfillset(all.as_mut_ptr());
                libc::sigemptyset(before.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
                Self(before.assume_init())
            }
        }
    }

    impl Drop for HeldSignals {
        fn drop(&mut self) {
            // SAFETY: restores the set that `hold` initialised.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
        }
    }

    fn check(result: c_int) -> io::Result<()> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

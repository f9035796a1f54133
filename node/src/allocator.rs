//! How the allocator of a server keeps memory.

/// `mi_option_purge_delay`: after how many milliseconds memory that was let go is given back to the
/// system; -1 never. The binding has no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has memory that was let go kept for the next who asks. A server lets go of what an entry took and
/// asks for as much again a millisecond later: given back meanwhile, each time it would come as pages
/// that the system has to clear first, which took a seventh of the time of debits in batches. What a
/// server takes is bounded by its configuration all the same.
///
/// `MIMALLOC_PURGE_DELAY` in the environment has the last word.
pub fn keep_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: sets a number that the allocator reads, and touches nothing else.
        #[allow(unsafe_code)]
        unsafe {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        }
    }
}

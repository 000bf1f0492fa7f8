//! What a session may use: its limits, as a client or an operator asks for them.

/// The limits of one session; what is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all its processes together, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time of its worker, in seconds.
    pub cpu_s: Option<u64>,
    /// Time that one execution may take, in milliseconds. It stands still while a person is asked.
    pub time_ms: Option<u64>,
    /// Processes and threads at a time.
    pub processes: Option<u64>,
    /// Descriptors that one process may have open.
    pub open_files: Option<u64>,
    /// Size of one file that is written, in bytes.
    pub file_bytes: Option<u64>,
    /// Size of everything in the working directory, in bytes.
    pub disk_bytes: Option<u64>,
    /// Stream text kept per execution, in bytes; what is printed beyond it is counted, and its tail kept.
    pub output_bytes: Option<u64>,
}

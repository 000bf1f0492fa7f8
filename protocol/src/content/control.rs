//! `shutdown_request`, `interrupt_request`, `usage_request`.

use serde::{Deserialize, Serialize};

/// `shutdown_request`
#[derive(Clone, Debug, Deserialize)]
pub struct ShutdownRequest {
    /// Another kernel will take the place of this one.
    #[serde(default)]
    pub restart: bool,
}

/// `shutdown_reply`
#[derive(Debug, Serialize)]
pub struct ShutdownReply {
    /// `ok`
    pub status: &'static str,
    /// As asked.
    pub restart: bool,
}

/// `interrupt_request`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct InterruptRequest {}

/// `usage_reply` (ipykernel's extension, read by JupyterLab's resource display).
#[derive(Debug, Serialize)]
pub struct UsageReply {
    /// Host name.
    pub hostname: String,
    /// Process id of the worker.
    pub pid: u32,
    /// Percent of one processor, averaged since the last request.
    pub kernel_cpu: f64,
    /// Bytes of resident memory of kernel and worker.
    pub kernel_memory: u64,
    /// Percent of all processors in use on the host.
    pub host_cpu_percent: f64,
    /// Processors.
    pub cpu_count: usize,
    /// Memory of the host.
    pub host_virtual_memory: HostMemory,
}

/// Memory of the host, in bytes.
#[derive(Debug, Serialize)]
pub struct HostMemory {
    /// All.
    pub total: u64,
    /// What can be given out without swapping.
    pub available: u64,
    /// Percent in use.
    pub percent: f64,
    /// In use.
    pub used: u64,
    /// Not used at all.
    pub free: u64,
}

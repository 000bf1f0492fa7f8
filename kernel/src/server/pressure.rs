//! Whoever says that the memory of this host runs short.

use cob_pool::MemoryPressure;

/// See the module.
pub trait Pressure: Send {
    /// Waits until it is; what was said before this was asked is old news. `None`: it will not be said again. Cancel-safe.
    fn short(&mut self) -> impl Future<Output = Option<()>> + Send;
}

impl Pressure for MemoryPressure {
    async fn short(&mut self) -> Option<()> {
        Self::short(self).await
    }
}

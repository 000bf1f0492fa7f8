//! The five Jupyter channels of one kernel, connection files and kernelspecs.
//!
//! What arrives is verified here and handed on; what it means is the kernel's business.

#[cfg(feature = "connection")]
mod connection;
mod connection_file;
mod endpoint;
pub mod kernelspec;

#[cfg(feature = "connection")]
pub use connection::{ClientError, Connection, Delivery};
pub use connection_file::{ConnectionError, ConnectionFile};
pub use endpoint::{BindError, Intake, NotebookEndpoint, NotebookOutlet, Received, Subscriptions};

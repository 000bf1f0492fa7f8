//! A session on the five Jupyter channels.

use cob_bridge::Bridge;
use cob_clients::notebook::{Intake, NotebookEndpoint};
use cob_protocol::message::Channel;
use tokio::sync::mpsc;

use crate::outlet::Outlet;
use crate::request::{ClientRequest, Command, lanes};
use crate::session::{Config, End, Session};

/// Serves one session to the clients of `endpoint` until it ends.
///
/// `commands` carries what the process itself wants: signals become interrupts and shutdowns.
pub async fn serve(
    endpoint: NotebookEndpoint,
    config: Config,
    bridge: Bridge,
    mut commands: mpsc::Receiver<Command>,
) -> End {
    let outlet = Outlet::Notebook(endpoint.outlet());
    let config = Config { ports: Some(endpoint.ports()), ..config };
    let (senders, inputs) = lanes();
    let NotebookEndpoint { shell, control, stdin, subscriptions, .. } = endpoint;
    let session = Session::new(config, bridge, outlet, inputs);
    tokio::select! {
        end = session.run() => end,
        () = forward(shell, Channel::Shell, senders.shell) => End::Shutdown,
        () = forward(control, Channel::Control, senders.control) => End::Shutdown,
        () = forward(stdin, Channel::Stdin, senders.stdin) => End::Shutdown,
        () = subscriptions.serve() => End::Shutdown,
        () = async {
            while let Some(command) = commands.recv().await {
                // It fails only when the session has ended.
                let _ = senders.commands.send(command).await;
            }
            std::future::pending().await
        } => End::Shutdown,
    }
}

/// Carries requests of one channel into the session's lane; a full lane leaves them in the client's socket.
async fn forward(mut intake: Intake, channel: Channel, lane: mpsc::Sender<ClientRequest>) {
    loop {
        let received = intake.recv().await;
        let request = ClientRequest::new(received.identity, channel, received.message);
        if lane.send(request).await.is_err() {
            return;
        }
    }
}

//! What `cob serve` does for agents: one store, one endpoint, many sessions; and how it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cob_bridge::{Bridge, StoreOptions};
use cob_clients::agent::{
    AgentConnection, AgentEndpoint, AgentSender, Curve, KeyFolder, Place, SecretKey, ServerFile,
    ServerFileError, ServerPlace, Signed, Trust,
};
use cob_clients::zmtp::Endpoint;
use cob_kernel::request::Refusal;
use cob_kernel::server::{Directory, Hub, HubConfig, Life, Sessions, Settings};
use cob_pool::{MemoryPressure, Pool, Workers, exit_of};
use cob_protocol::content::agent::AGENT_PROTOCOL_VERSION;
use cob_protocol::json::Json;
use cob_protocol::limits::{FLUSH_MS_MAX, RELIEF_REST_MS, SERVER_BALLAST_BYTES};
use cob_protocol::promise::Durability;
use cob_protocol::time::SystemClock;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::durable::{self, Survives};
use super::languages::Installed;
use super::{Failure, keys, limits, state};

#[derive(Debug, Args)]
// Its name would be that of the options that it is a part of.
#[group(skip)]
pub(crate) struct Options {
    /// The folder of the records of all sessions. Started again with the same folder, the server takes up every session
    /// that was not closed [default: `server` in the folder that COB_STATE_DIR, XDG_STATE_HOME or HOME names]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Keep the records in memory only: sessions end with the server
    #[arg(long, conflicts_with_all = ["store", "durability"])]
    ephemeral: bool,
    /// What a record survives before anybody is told of it, unless a session or a request says otherwise
    #[arg(long, value_name = "WHAT", default_value = "process")]
    durability: Survives,
    /// Seconds for which running code goes on without the server, until it is started again; 0: the code ends with it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = durable::grace)]
    grace: Duration,
    /// Listen there as well. 127.0.0.1:0: the key that clients need is written into server.json. An address that can be
    /// reached from elsewhere, such as 0.0.0.0:5556: everything is encrypted (CURVE), and only clients whose keys
    /// `cob keys` has let in may connect
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<SocketAddr>,
    /// Encrypt what comes to --tcp on a loopback address as well: for tunnels that begin elsewhere
    #[arg(long)]
    curve: bool,
    /// Seconds for which executions may go on when the server is told to end; then they are interrupted
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = limits::seconds)]
    drain: Duration,
    /// Do nothing about it when the memory of this host runs short. Otherwise sessions with nothing to do give up their
    /// automatic checkpoints then, and if that is not enough, those idle for longest are hibernated
    #[arg(long)]
    ignore_pressure: bool,
    /// Take over from the server that runs: it makes room, and code that runs goes on
    #[arg(long)]
    pub(crate) replace: bool,
}

/// The half of a server that agents see.
pub(crate) struct Serving {
    sessions: Sessions,
    bridge: Bridge,
    hub: Hub,
    sender: AgentSender,
    file: ServerFile,
    path: PathBuf,
    drain: Duration,
    /// Nothing is done when memory is short.
    ignores_pressure: bool,
    /// Another server wants our place.
    leaving: Arc<Notify>,
}

impl Options {
    /// Asks the server that runs to make room, and waits until it has.
    pub(crate) async fn take_place(&self, runtime: &Path) -> Result<(), Failure> {
        let file = match ServerFile::read(&ServerFile::path_in(runtime)) {
            Ok(file) => file,
            // Nobody is there to be replaced.
            Err(ServerFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(Failure::failed(error)),
        };
        let place = ServerPlace::of(&file).map_err(Failure::failed)?;
        let client = Uuid::new_v4().to_string();
        match AgentConnection::open(&place, client, None, Arc::new(SystemClock)).await {
            Ok(mut server) => {
                if let Err(error) = server.request("server_handover", serde_json::json!({})).await
                    && error.code().is_some()
                {
                    return Err(Failure::failed(error));
                }
            }
            // It was killed, and its file is still there.
            Err(error) => tracing::info!(%error, "the last server is gone already"),
        }
        if let Err(error) = exit_of(file.pid).await {
            tracing::debug!(%error, pid = file.pid, "the last server cannot be watched");
        }
        Ok(())
    }

    /// Opens the records, binds the endpoint and takes up the sessions of the last server.
    pub(crate) async fn begin(
        &self,
        runtime: &Path,
        pool: &Pool,
        settings: Settings,
        languages: Installed,
    ) -> Result<Serving, Failure> {
        let bridge = self.bridge().await?;
        // Before any session goes on: what fails from there on would end it.
        let (endpoint, file) = self.bind(runtime).await?;
        let sender = endpoint.sender();
        let directory = Arc::new(Directory::default());
        let sessions = Sessions::new(bridge.clone(), Arc::clone(&directory), Arc::new(languages), settings);
        let leaving = Arc::new(Notify::new());
        let pool = pool.clone();
        let pool = Box::new(move || {
            let pool = pool.clone();
            Box::pin(
                async move { pool.info().await.and_then(|info| Json::of(&info).ok()).unwrap_or_default() },
            ) as _
        });
        let config = HubConfig { instance: file.instance.clone(), pool };
        let hub = Hub::new(endpoint, bridge.clone(), directory, life(&sessions, &leaving), config);
        let count = match sessions.recover().await {
            Ok(count) => count,
            Err(error) => abandon(&format!("the sessions of the last server cannot be taken up: {error}")),
        };
        if count > 0 {
            tracing::info!(count, "sessions of the last server go on");
        }
        let path = ServerFile::path_in(runtime);
        if let Err(error) = file.write(&path) {
            abandon(&error.to_string());
        }
        let (drain, ignores_pressure) = (self.drain, self.ignore_pressure);
        Ok(Serving { sessions, bridge, hub, sender, file, path, drain, ignores_pressure, leaving })
    }

    /// How sessions of the server are set up.
    pub(crate) async fn settings(&self, runtime: &Path, pool: &Pool) -> Result<Settings, Failure> {
        let survives = !self.ephemeral && !self.grace.is_zero();
        let survival = if survives { Some(durable::surviving(runtime, self.grace)?) } else { None };
        if let Some(survival) = survival.clone() {
            // The first session does not wait for it.
            tokio::spawn(async move {
                if let Err(error) = survival.prepare().await {
                    tracing::error!(%error, "workers will not outlive the server");
                }
            });
        }
        let folder = if self.ephemeral { runtime.join("work") } else { self.store()?.join("work") };
        let durability = if self.ephemeral { Durability::None } else { self.durability.into() };
        Ok(Settings { survival, durability, ..Settings::new(Workers::Pool(pool.clone()), folder) })
    }

    fn store(&self) -> Result<PathBuf, Failure> {
        match &self.store {
            Some(folder) => super::absolute(folder),
            None => durable::made(state::folder()?.join("server")),
        }
    }

    async fn bridge(&self) -> Result<Bridge, Failure> {
        let clock = Arc::new(SystemClock);
        if self.ephemeral {
            return Ok(Bridge::in_memory(clock));
        }
        let options =
            StoreOptions { ballast_bytes: SERVER_BALLAST_BYTES, ..StoreOptions::new(self.store()?) };
        let opening = tokio::task::spawn_blocking(move || Bridge::open(&options, clock));
        opening.await.map_err(Failure::failed)?.map_err(Failure::failed)
    }

    async fn bind(&self, runtime: &Path) -> Result<(AgentEndpoint, ServerFile), Failure> {
        let instance = Uuid::new_v4().to_string();
        let mut places =
            vec![Place { endpoint: Endpoint::Ipc(runtime.join("agent")), trust: Trust::SameUser }];
        if self.curve && self.tcp.is_none() {
            return Err(Failure::usage("--curve: name the address that clients connect to with --tcp"));
        }
        let reach = self.tcp.map(|address| self.reach(address)).transpose()?;
        if let Some((address, reach)) = self.tcp.zip(reach.as_ref()) {
            places.push(Place { endpoint: Endpoint::Tcp(address), trust: reach.trust() });
        }
        let clock = Arc::new(SystemClock);
        let bound = AgentEndpoint::bind(places, instance.clone(), clock).await;
        let endpoint =
            bound.map_err(|error| Failure::Failed(format!("cannot listen for agents: {error}")))?;
        let mut bound = endpoint.endpoints().map(ToString::to_string);
        let ipc = bound.next().unwrap_or_default();
        let (tcp, curve) = match bound.next().zip(reach) {
            Some((endpoint, Reach::Signed { key })) => (Some(Signed { endpoint, key }), None),
            Some((endpoint, Reach::Curve { secret_key, .. })) => {
                let public_key = secret_key.public().to_string();
                (None, Some(Curve { endpoint, public_key }))
            }
            None => (None, None),
        };
        drop(bound);
        let (version, pid) = (AGENT_PROTOCOL_VERSION, std::process::id());
        Ok((endpoint, ServerFile { version, pid, instance, ipc, tcp, curve }))
    }

    fn reach(&self, address: SocketAddr) -> Result<Reach, Failure> {
        if address.ip().is_loopback() && !self.curve {
            let key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            return Ok(Reach::Signed { key });
        }
        let keys = KeyFolder::new(keys::folder()?);
        if keys.server_public().map_err(keys::failed)?.is_none() {
            return Err(Failure::usage(format_args!(
                "--tcp {address}: what comes from there must be encrypted, and this server has no key; run `cob keys \
                 server`, and `cob keys add NAME` for each client"
            )));
        }
        let secret_key = keys.server().map_err(keys::failed)?.secret;
        Ok(Reach::Curve { secret_key, authorized: keys.authorized() })
    }
}

/// How clients on TCP prove who they are.
enum Reach {
    /// They have read server.json.
    Signed { key: String },
    /// They have a key of their own.
    Curve { secret_key: SecretKey, authorized: PathBuf },
}

impl Reach {
    fn trust(&self) -> Trust {
        match self {
            Self::Signed { key } => Trust::Key(key.clone()),
            Self::Curve { secret_key, authorized } => {
                Trust::Curve { secret_key: secret_key.clone(), authorized: authorized.clone() }
            }
        }
    }
}

impl Serving {
    /// How many sessions are open.
    pub(crate) fn open(&self) -> usize {
        self.sessions.directory().len()
    }

    /// Serves agents, and beside that does `others`, until `stopped` tells it to end; a second time: at once.
    pub(crate) async fn run(self, others: impl Future<Output = ()>, stopped: &mut Stops) {
        let Self { sessions, bridge, hub, sender, file, path, drain, ignores_pressure, leaving } = self;
        let serving = async {
            let relief = async {
                if !ignores_pressure {
                    relieve(&sessions).await;
                }
            };
            tokio::join!(hub.run(), sessions.watch_deadlines(), relief, others);
        };
        tokio::pin!(serving);
        let flush = Duration::from_millis(FLUSH_MS_MAX);
        tokio::select! {
            () = &mut serving => {}
            () = stopped.next() => {}
            () = leaving.notified() => {
                sender.flushed(flush).await;
                file.remove(&path);
                leave(0);
            }
        }
        tokio::select! {
            () = sessions.close(drain) => {}
            () = &mut serving => {}
            () = stopped.next() => {
                file.remove(&path);
                eprintln!("cob: ended at once; what is open goes on when the server is started again");
                leave(130);
            }
        }
        sender.flushed(flush).await;
        file.remove(&path);
        bridge.close().await;
    }
}

/// What tells the server to end.
pub(crate) struct Stops(pub(crate) watch::Receiver<u64>);

impl Stops {
    /// The next time. Cancel-safe.
    async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Ends the process as if it had been killed: nothing is dropped, because whatever drops a session ends its worker.
fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

/// The same, when the server cannot go on.
fn abandon(why: &str) -> ! {
    eprintln!("cob: {why}");
    leave(1)
}

/// Makes room when memory is short, where that is said.
async fn relieve(sessions: &Sessions) {
    match MemoryPressure::open() {
        Ok(pressure) => sessions.relieve(pressure, Duration::from_millis(RELIEF_REST_MS)).await,
        Err(error) => tracing::debug!(%error, "this system does not say when memory is short"),
    }
}

/// What the hub asks for.
fn life(sessions: &Sessions, leaving: &Arc<Notify>) -> Life {
    let (opener, keeper, leaving) = (sessions.clone(), sessions.clone(), Arc::clone(leaving));
    let (forker, attacher, detacher) = (sessions.clone(), sessions.clone(), sessions.clone());
    Life {
        open: Box::new(move |owner, open| {
            let sessions = opener.clone();
            Box::pin(async move { sessions.open(&owner, open).await })
        }),
        fork: Box::new(move |owner, fork| {
            let sessions = forker.clone();
            Box::pin(async move { sessions.branch(&owner, fork).await })
        }),
        attach: Box::new(move |attach| {
            let sessions = attacher.clone();
            Box::pin(async move { sessions.attach(attach).await })
        }),
        detach: Box::new(move |session, number| {
            let sessions = detacher.clone();
            Box::pin(async move { sessions.detach(session, number).await })
        }),
        handover: Box::new(move || {
            let (sessions, leaving) = (keeper.clone(), Arc::clone(&leaving));
            Box::pin(async move {
                sessions.settle_records().await;
                leaving.notify_one();
                Ok::<_, Refusal>(())
            })
        }),
    }
}

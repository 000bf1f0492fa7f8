//! Who we are: `kernel_info_request`, `connect_request`, `usage_request`, `shutdown_request`.

use cob_pool::Origin;
use cob_pool::usage::{HostSample, ProcessSample};
use cob_protocol::content::{
    ConnectReply, HelpLink, HostMemory, KernelInfoReply, SessionInfo, ShutdownReply, UsageReply,
};
use cob_protocol::error::ErrorCode;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_WAITING_MAX;
use cob_protocol::message::PROTOCOL_VERSION;
use cob_protocol::promise::SessionState;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::request::ClientRequest;
use crate::session::{Session, WorkerState};

const JUPYTER: HelpLink = HelpLink { text: "Jupyter Documentation", url: "https://docs.jupyter.org" };

/// Where people read on, by the name of the language.
const HELP_LINKS: &[(&str, &[HelpLink])] = &[
    ("python", &[HelpLink { text: "Python Reference", url: "https://docs.python.org/3" }, JUPYTER]),
    (
        "typescript",
        &[
            HelpLink { text: "TypeScript Handbook", url: "https://www.typescriptlang.org/docs/handbook/" },
            HelpLink {
                text: "JavaScript Reference",
                url: "https://developer.mozilla.org/docs/Web/JavaScript/Reference",
            },
            JUPYTER,
        ],
    ),
];

fn help_links(language_info: &Json) -> &'static [HelpLink] {
    let info: Value = language_info.read().unwrap_or_default();
    let found = HELP_LINKS.iter().find(|(language, _)| info["name"] == *language);
    found.map_or(&[JUPYTER], |(_, links)| links)
}

/// Processor time at the last `usage_request`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageSample {
    process: ProcessSample,
    host: HostSample,
}

impl Session {
    /// Answered at once, also while code runs; only the very first start has to be waited for.
    pub(crate) fn kernel_info(&mut self, request: ClientRequest) {
        if self.ready.is_some() {
            self.answer_kernel_info(&request);
        } else if self.waiting_for_ready.len() < SESSION_WAITING_MAX {
            self.waiting_for_ready.push(request);
        } else {
            self.at_once(&request, |session| {
                session.reply_error(
                    &request,
                    ErrorCode::Busy,
                    "too many requests wait for the worker",
                    SessionState::Kept,
                );
            });
        }
    }

    pub(crate) fn answer_kernel_info(&mut self, request: &ClientRequest) {
        self.at_once(request, |session| {
            let Some(ready) = session.ready.clone() else { return };
            let reply = KernelInfoReply {
                status: "ok",
                protocol_version: PROTOCOL_VERSION,
                implementation: "cob",
                implementation_version: env!("CARGO_PKG_VERSION"),
                language_info: &ready.language_info,
                banner: &ready.banner,
                debugger: false,
                supported_features: &[],
                help_links: help_links(&ready.language_info),
                cob: SessionInfo {
                    session: &session.config.id.to_string(),
                    durability: session.config.durability,
                    records: &Json::of(&session.bridge.metrics()).unwrap_or_default(),
                    worker: session.origin.map_or("", Origin::as_str),
                    limits: &session.enforced,
                    confinement: &ready.confinement,
                },
            };
            session.reply(request, "kernel_info_reply", Json::of(&reply).unwrap_or_default());
        });
    }

    pub(crate) fn connect(&mut self, request: &ClientRequest) {
        let none = ConnectReply {
            status: "ok",
            shell_port: 0,
            iopub_port: 0,
            stdin_port: 0,
            control_port: 0,
            hb_port: 0,
        };
        let ports = self.config.ports.unwrap_or(none);
        self.reply(request, "connect_reply", Json::of(&ports).unwrap_or_default());
    }

    pub(crate) fn shutdown_request(&mut self, request: &ClientRequest, restart: bool) {
        self.at_once(request, |session| {
            let content = Json::of(&ShutdownReply { status: "ok", restart }).unwrap_or_default();
            session.reply(request, "shutdown_reply", content.clone());
            session.publish(request, "shutdown_reply", &content);
        });
        match (self.config.is_hosted, restart) {
            (false, _) => self.shut_down(restart),
            // A front end that goes away leaves the session to those whose it is; nobody waits for the new worker.
            (true, false) => {}
            (true, true) => self.restart(oneshot::channel().0),
        }
    }

    /// Processor use is that since the last request.
    pub(crate) fn usage(&mut self, request: &ClientRequest) {
        let worker = match &self.worker {
            WorkerState::Live(worker) => worker.pid(),
            WorkerState::Starting(_) | WorkerState::None => std::process::id(),
        };
        let sample = (ProcessSample::take(worker), HostSample::take());
        let (Ok(process), Ok(host)) = sample else {
            return self.reply_error(
                request,
                ErrorCode::WorkerLost,
                "the worker's use of the host cannot be read",
                SessionState::Lost,
            );
        };
        let before = self.usage.replace(UsageSample { process, host });
        let since = |sample: Option<UsageSample>| {
            sample.map_or((0.0, 0.0), |old| {
                (process.cpu_percent_since(&old.process), host.cpu_percent_since(&old.host))
            })
        };
        let (kernel_cpu, host_cpu_percent) = since(before);
        let own = ProcessSample::take(std::process::id()).map_or(0, |own| own.resident_bytes);
        let used = host.memory_total.saturating_sub(host.memory_available);
        let reply = UsageReply {
            hostname: host.name(),
            pid: worker,
            kernel_cpu,
            kernel_memory: process.resident_bytes + own,
            host_cpu_percent,
            cpu_count: std::thread::available_parallelism().map_or(1, usize::from),
            host_virtual_memory: HostMemory {
                total: host.memory_total,
                available: host.memory_available,
                percent: 100.0 * used as f64 / host.memory_total.max(1) as f64,
                used,
                free: host.memory_free,
            },
        };
        self.reply(request, "usage_reply", Json::of(&reply).unwrap_or_default());
    }
}

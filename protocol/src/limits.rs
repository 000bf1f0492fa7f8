//! **The table** of every number that bounds cob: units and qualifiers stand last in the name.
//!
//! Nothing else in the tree may invent a bound. Relations between bounds are asserted at compile time, so that
//! a change which breaks one does not build.

/// One binary kilobyte, in bytes.
pub const KIB: usize = 1024;
/// One binary megabyte, in bytes.
pub const MIB: usize = 1024 * KIB;

// --- Frames between kernel and worker -----------------------------------------------------------------------

/// Largest frame before the handshake is done.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 64 * KIB;
/// The frame `hello`, which carries an environment: what Linux allows to be passed to a program, and some more. Only
/// the kernel sends it, so a worker takes it before the handshake is done.
pub const HELLO_FRAME_BYTES_MAX: usize = 4 * MIB;
/// Largest packet between host and zygote.
pub const ZYGOTE_PACKET_BYTES_MAX: usize = 64 * KIB;
/// Modules that a zygote imports in advance.
pub const IMPORTS_MAX: usize = 64;
/// Largest frame of the kinds that carry no user payload.
pub const PLAIN_FRAME_BYTES_MAX: usize = MIB;
/// Largest frame that carries a display, an answer or a result.
pub const DISPLAY_FRAME_BYTES_MAX: usize = 32 * MIB;
/// Largest frame that carries code or a comm message: what fits in one client message.
pub const REQUEST_FRAME_BYTES_MAX: usize = 33 * MIB;
/// Payloads in one frame.
pub const FRAME_PAYLOADS_MAX: usize = 1024;
/// How far a read buffer may grow ahead of the bytes that have arrived.
pub const READ_AHEAD_BYTES_MAX: usize = 64 * KIB;
/// Frames of unknown kind that are skipped before the peer is judged to talk nonsense.
pub const UNKNOWN_FRAMES_MAX: u32 = 1024;
/// Bytes that wait to be written to a worker before the kernel stops taking more requests.
pub const WORKER_QUEUE_BYTES_MAX: usize = 64 * MIB;

// --- Questions about code --------------------------------------------------------------------------------------

/// Completions in one answer.
pub const COMPLETIONS_MAX: usize = 5000;
/// Variables in one list of them.
pub const NAMESPACE_NAMES_MAX: usize = 1000;
/// Longest name or type in such a list, in characters.
pub const NAMESPACE_NAME_CHARACTERS_MAX: usize = 200;
/// Source of one function that is shown, in UTF-16 code units.
pub const INSPECT_SOURCE_UNITS_MAX: usize = 64 * KIB;
/// Characters of a value that are shown, briefly and at length.
pub const INSPECT_VALUE_CHARACTERS: [usize; 2] = [400, 8000];
/// Calls around the cursor that are asked about.
pub const INSPECT_SUBJECTS_MAX: usize = 16;

// --- Output -------------------------------------------------------------------------------------------------

/// Capacity asked for each of a worker's two output pipes.
pub const OUTPUT_PIPE_BYTES: usize = MIB;
/// The same of a worker that outlives its server. When the next one comes while the worker is blocked by a full pipe, it
/// makes room by giving the pipe its full capacity: a user who is not root may not have more.
pub const SURVIVING_PIPE_BYTES: usize = OUTPUT_PIPE_BYTES / 2;
/// One stream event holds at most this much text.
pub const STREAM_EVENT_BYTES_MAX: usize = 64 * KIB;
/// Small writes are gathered for at most this long before they become one event.
pub const STREAM_COALESCE_MS: u64 = 10;
/// Stream text kept per execution; what is printed beyond it is counted, and its tail kept.
pub const OUTPUT_KEPT_BYTES_MAX: usize = 64 * MIB;
/// Entries of a working directory whose sizes are added up; one that holds more counts as too large.
pub const DISK_ENTRIES_MAX: usize = 200_000;
/// How much of the end is kept when an execution prints more than [`OUTPUT_KEPT_BYTES_MAX`].
pub const OUTPUT_TAIL_BYTES: usize = 64 * KIB;

/// Early output of a worker kept to explain a failed start.
pub const START_OUTPUT_BYTES_MAX: usize = 8 * KIB;

// --- Client messages ----------------------------------------------------------------------------------------

/// Largest multipart message a client may send, all parts together.
pub const MESSAGE_BYTES_MAX: usize = 32 * MIB;
/// Parts of one multipart message.
pub const MESSAGE_PARTS_MAX: usize = 64;
/// Longest id (Jupyter `msg_id`, session, ZeroMQ identity frame) that is accepted.
pub const ID_BYTES_MAX: usize = 255;
/// Signatures remembered to refuse replayed messages.
pub const REPLAY_WINDOW: usize = 65_536;
/// Requests that wait in one session before its client's socket is no longer read.
pub const SESSION_QUEUE_MAX: usize = 4096;
/// Requests of one session that wait for its worker to introduce itself, or for an execution they joined.
pub const SESSION_WAITING_MAX: usize = 1024;
/// Bytes of requests that wait in one session before its client's socket is no longer read.
pub const SESSION_QUEUE_BYTES_MAX: usize = 64 * MIB;

// --- ZeroMQ sockets -----------------------------------------------------------------------------------------

/// A peer must finish greeting and READY within this time.
pub const ZMTP_HANDSHAKE_MS_MAX: u64 = 5_000;
/// Largest ZMTP command (READY, SUBSCRIBE, PING, …).
pub const ZMTP_COMMAND_BYTES_MAX: usize = 8 * KIB;
/// Peers connected to one socket.
pub const ZMTP_PEERS_MAX: usize = 1024;
/// Peers of one socket that have not finished their handshake.
pub const ZMTP_HALF_OPEN_MAX: usize = 128;
/// Bytes of messages from all peers of one socket that are not complete yet.
pub const ZMTP_INBOUND_BYTES_MAX: usize = 128 * MIB;
/// A peer that stops in the middle of a message is closed after this time.
pub const ZMTP_STALL_MS_MAX: u64 = 10_000;
/// Bytes queued for one peer; a ROUTER refuses more, a publisher waits or cuts the peer off.
pub const ZMTP_PEER_QUEUE_BYTES_MAX: usize = 64 * MIB;
/// A subscriber over half its queue that read nothing for this long is cut off.
pub const ZMTP_SUBSCRIBER_STALL_MS_MAX: u64 = 2_000;
/// Subscriptions of one peer.
pub const ZMTP_SUBSCRIPTIONS_MAX: usize = 1024;
/// Pause after `accept` failed for want of descriptors or memory.
pub const ACCEPT_BACKOFF_MS: u64 = 100;
/// Messages received and not yet taken by the owner of a socket.
pub const ZMTP_INBOX_MAX: usize = 256;
/// Bytes of messages received and not yet taken by the owner of a socket.
pub const ZMTP_INBOX_BYTES_MAX: usize = 64 * MIB;
/// Bytes queued for one peer in the control lane, beside those of [`ZMTP_PEER_QUEUE_BYTES_MAX`].
pub const ZMTP_CONTROL_QUEUE_BYTES_MAX: usize = 4 * MIB;
/// A subscriber over half its queue must read this much per [`ZMTP_SUBSCRIBER_STALL_MS_MAX`]: one that takes a
/// byte now and then would slow publishing down for everybody else.
pub const ZMTP_SUBSCRIBER_PROGRESS_BYTES_MIN: usize = 64 * KIB;
/// Topics of all subscriptions of one peer together.
pub const ZMTP_SUBSCRIPTION_BYTES_MAX: usize = 64 * KIB;
/// Largest message that the heartbeat echoes: it answers strangers, one message of each may wait.
pub const ZMTP_HEARTBEAT_BYTES_MAX: usize = MIB;
/// Answers to PING that one peer has not read; further ones are not sent, since it could not tell.
pub const ZMTP_UNREAD_PONG_BYTES_MAX: usize = 64 * KIB;
/// What the system buffers for one TCP peer. It reports room in thirds of this: with the usual 4 MiB a
/// subscriber that reads 600 KB/s looked as if it had stopped for [`ZMTP_SUBSCRIBER_STALL_MS_MAX`].
pub const ZMTP_SEND_BUFFER_BYTES: u32 = 256 * 1024;
/// Messages of one ROUTER that are kept for peers that are not connected; the oldest go first.
pub const ZMTP_MAILBOX_MESSAGES_MAX: usize = 1024;
/// Bytes of these messages.
pub const ZMTP_MAILBOX_BYTES_MAX: usize = 16 * MIB;
/// What was posted to one peer waits for more to be written with it, up to this much.
pub const ZMTP_GATHERED_BYTES_MAX: usize = 64 * KIB;
/// One peer is written this much before others get their turn.
pub const ZMTP_WRITE_TURN_BYTES: usize = MIB;

// --- Time ---------------------------------------------------------------------------------------------------

/// A worker must say `ready` within this time.
pub const WORKER_START_MS_MAX: u64 = 30_000;
/// Between the first SIGINT of an interrupt and the second.
pub const INTERRUPT_AGAIN_MS: u64 = 1_000;
/// Between the first SIGINT of an interrupt and SIGKILL, unless the session asks for another time.
pub const INTERRUPT_GRACE_MS: u64 = 2_000;
/// Bytes of output that are looked at once more before a worker is killed: what its two pipes can hold, read and
/// unread.
pub const LAST_LOOK_BYTES_MAX: usize = 4 * OUTPUT_PIPE_BYTES;
/// Outputs and frames that are looked at once more before a worker is killed: more than its socket can hold.
pub const LAST_LOOK_EVENTS_MAX: usize = 16_384;
/// A worker that has been stopped (SIGSTOP) for this long is judged stalled.
pub const STALLED_MS: u64 = 5_000;
/// Whoever reaps a worker is given this long to say how it ended.
pub const LAST_WORDS_MS_MAX: u64 = 1_000;
/// A zygote must have done its imports within this time.
pub const ZYGOTE_START_MS_MAX: u64 = 60_000;
/// A zygote must fork within this time.
pub const FORK_MS_MAX: u64 = 10_000;
/// A worker asked to shut down gets this long before its process group is killed.
pub const SHUTDOWN_GRACE_MS: u64 = 1_000;
/// What has been published is given this long to reach the wire before the process exits.
pub const FLUSH_MS_MAX: u64 = 1_000;
/// Outputs are given this long to reach the wire before the reply overtakes them for a slow subscriber.
pub const OUTPUT_BEFORE_REPLY_MS_MAX: u64 = 1_000;
/// Starts of one environment that may fail in a row before further requests are refused for a while. Not one: a start
/// may fail for want of memory or processes, and then the next succeeds. Not two: one request alone may use up two,
/// since it is tried on a second worker.
pub const START_FAILURES_MAX: u32 = 3;
/// The first pause after failed starts (or forks, or zygotes): longer than a start that fails takes, so that trying
/// costs less than half of the time.
pub const RETRY_PAUSE_MS_MIN: u64 = 500;
/// The longest pause: who has just mended an environment does not wait longer.
pub const RETRY_PAUSE_MS_MAX: u64 = 30_000;

// --- The pool of workers ------------------------------------------------------------------------------------

/// Workers kept warm per environment, unless the operator says otherwise.
pub const SPARES: usize = 2;
/// What a warm worker is thought to weigh until one was weighed.
pub const SPARE_BYTES: u64 = 8 * MIB as u64;
/// Memory of zygotes and warm workers, unless the operator says otherwise.
pub const POOL_MEMORY_BYTES: u64 = 2048 * MIB as u64;
/// Environments of one pool.
pub const ENVIRONMENTS_MAX: usize = 16;
/// Cold starts under way per environment: more would only share the processors.
pub const COLD_STARTS_MAX: usize = 8;
/// Forks under way per environment.
pub const FORKS_MAX: usize = 16;
/// After a lease no worker is forked for later, unless somebody waits: the session that begins meanwhile would share its
/// processors with the fork. Measured: the slowest of 100 leases took 6.9 ms without a pause, and 2.9 ms with it.
pub const REFILL_PAUSE_MS: u64 = 5;
/// Requests per environment that wait without a start being under way for them.
pub const WAITING_LEASES_MAX: usize = 1024;
/// A server that has not answered a request for a worker by then is stopped or overwhelmed: whoever asks does better
/// without it.
pub const POOL_ANSWER_MS_MAX: u64 = 5_000;
/// Processes that a pool serves at a time, each with one worker.
pub const POOL_CONNECTIONS_MAX: usize = 4096;

// --- Promises and journal -----------------------------------------------------------------------------------

/// Writes that one commit takes together, at most.
pub const COMMIT_WRITES_MAX: usize = 512;
/// Bytes of events that one commit takes together, roughly: half of the smallest ballast must hold it.
pub const COMMIT_BYTES_MAX: usize = MIB;
/// Bytes of writes that wait for the writer; whoever records more waits.
pub const WRITER_QUEUE_BYTES_MAX: usize = 64 * MIB;
/// Bytes of messages of one session that wait for their records; then its worker is not heard.
pub const EFFECTS_BYTES_MAX: usize = 8 * MIB;
/// Events of a worker that are dealt with before their records are submitted together.
pub const EVENTS_AT_ONCE_MAX: usize = 64;
/// Size of the write-ahead log at which its content goes into the database when the writer has nothing else to do.
pub const WAL_BYTES_IDLE_MAX: u64 = 4 * MIB as u64;
/// Size of the write-ahead log at which that is done even if somebody waits for the next commit.
pub const WAL_BYTES_MAX: u64 = 64 * MIB as u64;
/// Databases up to this size are checked as a whole at the start; of larger ones what promises rest on.
pub const CHECKED_WHOLE_BYTES_MAX: u64 = 64 * MIB as u64;
/// After so many commits the writer sees, when it has nothing else to do, whether the log or the journal is too long.
pub const TIDY_COMMITS: u32 = 64;
/// The writer has nothing else to do when nothing was written for this long: what it does then takes longer than several
/// commits, and a notebook that runs all its cells pauses for less.
pub const CHORES_QUIET_MS: u64 = 250;
/// After so many commits the journal is looked through for what is to be forgotten.
pub const RETENTION_COMMITS: u32 = 4096;
/// Events that one step of retention forgets, at most.
pub const FORGOTTEN_AT_ONCE_MAX: usize = 1024;
/// Executions that one step of retention looks at, at most.
pub const RETENTION_SCAN_MAX: usize = 256;
/// Payloads of events larger than this lie in files of their own.
pub const PAYLOAD_INLINE_BYTES_MAX: usize = 64 * KIB;
/// Space kept in reserve to settle what runs when the disk is full: of a store that serves one session.
pub const BALLAST_BYTES: u64 = 4 * MIB as u64;
/// The same of the store of a server with many sessions.
pub const SERVER_BALLAST_BYTES: u64 = 64 * MIB as u64;
/// Events of one session that are kept: the oldest settled executions lose theirs first.
pub const SESSION_JOURNAL_BYTES_MAX: u64 = 1024 * MIB as u64;
/// Events of one store that are kept.
pub const STORE_JOURNAL_BYTES_MAX: u64 = 8 * 1024 * MIB as u64;
/// Age at which events of settled executions are forgotten; their promises are kept.
pub const JOURNAL_AGE_S_MAX: u64 = 30 * 24 * 3600;
/// Events that one read of a journal returns, at most.
pub const READ_EVENTS_MAX: usize = 1024;
/// Bytes of events that one read of a journal returns, unless the first event alone is larger.
pub const READ_BYTES_MAX: usize = 4 * MIB;
/// The store's lock may be held by another program for this long before writes fail.
pub const STORE_BUSY_MS_MAX: u64 = 5_000;
/// How long a store that another process has is waited for: it may be about to end. A second server is refused within
/// a second.
pub const STORE_LOCK_WAIT_MS: u64 = 500;
/// Failed commits in a row after which the store is only read.
pub const STORE_FAILURES_MAX: u32 = 3;
/// Connections that read one store at a time; further reads wait.
pub const STORE_READERS_MAX: usize = 4;
/// Below this much free space on its disk a store takes nothing new; with twice as much, and room for its ballast, it
/// does again.
pub const STORE_FREE_BYTES_MIN: u64 = BALLAST_BYTES;
/// The disk is looked at when this much was written since the last look, and whenever something new begins.
pub const STORE_LOOK_BYTES: usize = MIB;
/// What may be recorded besides ends once the ballast is spent: the rest of it is for the ends.
pub const NEED_BYTES_MAX: usize = (BALLAST_BYTES / 4) as usize;
/// A group larger than this is always written by the writer's thread.
pub const CLAIM_BYTES_MAX: usize = 16 * KIB;
/// A group that comes sooner than this after a commit is written by the writer's thread, with what follows it.
pub const CLAIM_PAUSE_MICROS: u64 = 30;
/// When a commit took whoever submitted it longer than this, the disk is slow…
pub const CLAIM_SLOW_MICROS: u64 = 2_000;
/// …and for this long everything is written by the writer's thread.
pub const CLAIM_SLOW_PAUSE_MS: u64 = 1_000;
/// A write of another process is seen a moment after it was noticed: one looks again after these times.
pub const LOOK_AGAIN_MS: [u64; 3] = [5, 50, 500];
/// Stores of kernels that are kept: beyond these the oldest go whose sessions have ended.
pub const KEPT_STORES_MAX: usize = 256;
/// Age at which stores go whose sessions have ended.
pub const KEPT_STORE_AGE_S_MAX: u64 = 30 * 24 * 3600;
/// When a promise could not be settled at its deadline, the next attempt comes so much later.
pub const DUE_AGAIN_MS: i64 = 1_000;
/// How long a question waits for an answer, unless it says otherwise.
pub const CALL_WAIT_MS: u64 = 3_600_000;
/// How long the call of a tool waits for its answer, unless it says otherwise.
pub const TOOL_WAIT_MS: u64 = 60_000;
/// Largest record of a request that waits or runs.
pub const REQUEST_RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX + MIB;

// --- The agent endpoint -------------------------------------------------------------------------------------

/// Sessions open at a time in one server.
pub const SESSIONS_MAX: usize = 1_000;
/// Name of a session, and the key that its opener gave it.
pub const SESSION_TEXT_BYTES_MAX: usize = KIB;
/// A sentence that says why something is refused: what it quotes may be as long as a message.
pub const REFUSAL_BYTES_MAX: usize = 4 * KIB;
/// Sessions whose keys are remembered after they were closed.
pub const CLOSED_KEYS_MAX: usize = 10_000;
/// Sessions that are taken up again at a time when a server begins.
pub const RECOVERIES_MAX: usize = 32;
/// A front end whose server is gone is told by the system when the next one is there; if that one cannot take it at once,
/// it asks again so often…
pub const REATTACH_MS: u64 = 2_000;
/// …and for so long.
pub const REATTACH_MS_MAX: u64 = 60_000;
/// Workers that one server takes over at a time: its custodian hears twice as many strangers.
pub const TAKING_OVER_MAX: usize = CUSTODY_STRANGERS_MAX / 2;
/// How long executions may go on when a server is told to end, unless it is told otherwise.
pub const DRAIN_MS: u64 = 10_000;
/// How long workers go on without their server, unless it is told otherwise.
pub const SERVER_GRACE_MS: u64 = 60_000;
/// Executions of one session that wait, run or are not delivered yet; more are refused with `busy`.
pub const SESSION_OPEN_MAX: usize = 256;
/// Requests of one peer that are not answered yet.
pub const PEER_REQUESTS_MAX: usize = 1_024;
/// Subscriptions of one peer.
pub const PEER_SUBSCRIPTIONS_MAX: usize = 256;
/// Tools registered in one session.
pub const SESSION_TOOLS_MAX: usize = 1_024;
/// What their names, descriptions and parameters weigh together.
pub const SESSION_TOOLS_BYTES_MAX: usize = 4 * MIB;
/// Durable channels of one session.
pub const SESSION_CHANNELS_MAX: usize = 64;
/// Jupyter front ends attached to one session.
pub const SESSION_ATTACHMENTS_MAX: usize = 16;
/// Largest item of a durable channel.
pub const CHANNEL_ITEM_BYTES_MAX: usize = MIB;
/// Items of a durable channel that the other side has not taken, in bytes; then its sender waits.
pub const CHANNEL_UNREAD_BYTES_MAX: usize = 16 * MIB;
/// Events in memory for one reader that keeps up; one that does not reads the journal.
pub const FOLLOWER_TAIL_EVENTS_MAX: usize = 64;
/// Bytes of these events.
pub const FOLLOWER_TAIL_BYTES_MAX: usize = 256 * KIB;
/// Executions that have begun and that the reader of a whole session has not heard of: more he finds in the store.
pub const FEED_NEWS_MAX: usize = 256;
/// Executions that the reader of a session takes from the store at a time.
pub const FEED_PAGE: usize = 64;
/// Executions that he looks into at once.
pub const FEED_TOGETHER: usize = 16;
/// Items that he is given at a time.
pub const FEED_ITEMS_MAX: usize = 1_024;
/// The last so many executions of a session whose late output he is still given.
pub const FEED_LATE_MAX: usize = 4;
/// Sessions or promises in one answer; the next page is asked for with `after`.
pub const PAGE_MAX: usize = 1_000;
/// The most credit that counts: what one reader may have granted and not received.
pub const CREDIT_MAX: u64 = 1 << 20;
/// The lowest priority of an execution; the highest is its opposite.
pub const PRIORITY_MIN: i32 = -100;
/// How often others may overtake an execution that waits: then nobody does any more.
pub const OVERTAKEN_MAX: u32 = 32;
/// What a client is told to wait for before it asks again.
pub const RETRY_AFTER_MS: u64 = 200;
/// A peer that grants credit and then reads nothing for this long is cut off.
pub const SLOW_PEER_MS_MAX: u64 = 10_000;
/// Data queued for one peer and not read, at which readers of events wait for room: enough for any line, little enough
/// for a thousand peers.
pub const AGENT_SEND_AHEAD_BYTES_MAX: usize = 4 * MIB;
/// A peer that says nothing is asked whether it is there after this time, and closed after twice as long.
pub const PEER_SILENCE_MS: u64 = 20_000;
/// A key for CURVE cookies is used this long at most.
pub const CURVE_COOKIE_KEY_MS_MAX: u64 = 60_000;
/// Files that are looked at in a folder of authorised keys.
pub const AUTHORIZED_KEYS_MAX: usize = 4_096;
/// Bytes that are read of the file of a key.
pub const KEY_FILE_BYTES_MAX: u64 = KIB as u64;
/// Longest name of a key.
pub const KEY_NAME_BYTES_MAX: usize = 64;
/// Messages that interceptors have not looked at; further ones they do not see.
pub const INTERCEPTOR_QUEUE_MAX: usize = 4_096;
/// How long an interceptor that has something to look at waits for more, so that its thread is woken once for many.
pub const INTERCEPTOR_GATHER_MS: u64 = 10;
/// The time one interceptor may take for one message.
pub const INTERCEPTOR_BUDGET_MICROS: u64 = 500;
/// An interceptor that took longer so often in a row is quarantined.
pub const INTERCEPTOR_STRIKES_MAX: u32 = 8;

/// A server that does not shake hands with a client by then is not there.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// A server that says nothing for this long is asked whether it is there, and given up after twice as long.
pub const AGENT_PING_MS: u64 = 10_000;
/// Messages between a client's socket and the client, in each direction; then the socket is not read.
pub const AGENT_QUEUE_MESSAGES: usize = 64;
/// Messages that a client keeps while it waits for a reply.
pub const AGENT_UNREAD_MESSAGES_MAX: usize = 65_536;
/// Events that our clients ask for at once.
pub const AGENT_CREDIT: u64 = 256;
/// How often a client tries to reach a server again that it has lost…
pub const RECONNECTS_MAX: u32 = 10;
/// …after this pause, which doubles…
pub const RECONNECT_PAUSE_MS_MIN: u64 = 50;
/// …up to this one.
pub const RECONNECT_PAUSE_MS_MAX: u64 = 3_000;

// --- Sessions that outlive their server ---------------------------------------------------------------------

/// Frames that a worker keeps until the kernel has recorded them; when they weigh more, the code waits.
pub const UNACKNOWLEDGED_BYTES_MAX: usize = 64 * MIB;
/// Longest time that workers go on without a server.
pub const GRACE_S_MAX: u64 = 7 * 24 * 3600;
/// Workers that one custodian holds.
pub const CUSTODY_MAX: usize = 4096;
/// What a custodian remembers of one worker beside its descriptors.
pub const CUSTODY_NOTE_BYTES_MAX: usize = 32 * KIB;

/// A worker that was taken over is given this long to come to its new socket before what it prints is given out without
/// the frames that it sent meanwhile.
pub const ATTACH_MS_MAX: u64 = 1_000;
/// A worker that another server has just taken over is not given to a second one before this time, unless the first
/// is gone.
pub const CUSTODY_HANDOVER_MS_MAX: u64 = 500;
/// Connections to a custodian that have not shown a secret.
pub const CUSTODY_STRANGERS_MAX: usize = 32;

/// Promises pending in one bridge.
pub const PENDING_PROMISES_MAX: usize = 100_000;
/// Bytes of events the in-memory journal keeps; the oldest settled executions go first.
pub const MEMORY_JOURNAL_BYTES_MAX: usize = 4 * MIB;
/// Settled promises the in-memory store remembers (for retries by key).
pub const MEMORY_SETTLED_MAX: usize = 4096;
/// Cells of the session's history that are remembered.
pub const HISTORY_ENTRIES_MAX: usize = 10_000;
/// Bytes of the session's history that are remembered.
pub const HISTORY_BYTES_MAX: usize = 16 * MIB;

// --- Resources of one session: the least and the most that may be asked for ---------------------------------

/// Below this no interpreter starts.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 16 * MIB as u64;
/// One pebibyte: more is a slip of the pen.
pub const MEMORY_LIMIT_BYTES_MAX: u64 = 1 << 50;
/// Processor time is counted by the system in whole seconds.
pub const CPU_LIMIT_S_MIN: u64 = 1;
/// A year.
pub const CPU_LIMIT_S_MAX: u64 = 365 * 24 * 3600;
/// Less would end executions before they began.
pub const TIME_LIMIT_MS_MIN: u64 = 10;
/// A year.
pub const TIME_LIMIT_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// A worker, its threads, and a child or two.
pub const PROCESSES_LIMIT_MIN: u64 = 4;
/// The most process ids that Linux gives out.
pub const PROCESSES_LIMIT_MAX: u64 = 1 << 22;
/// What a worker has open before it runs anything, with room for an import.
pub const OPEN_FILES_LIMIT_MIN: u64 = 32;
/// The most that Linux allows unless told otherwise (`fs.nr_open`).
pub const OPEN_FILES_LIMIT_MAX: u64 = 1 << 20;
/// One page.
pub const FILE_LIMIT_BYTES_MIN: u64 = 4 * KIB as u64;
/// One pebibyte.
pub const FILE_LIMIT_BYTES_MAX: u64 = 1 << 50;
/// An empty directory with a few small files.
pub const DISK_LIMIT_BYTES_MIN: u64 = 64 * KIB as u64;
/// One pebibyte.
pub const DISK_LIMIT_BYTES_MAX: u64 = 1 << 50;
/// The tail that is always kept, and as much of the head.
pub const OUTPUT_LIMIT_BYTES_MIN: u64 = 2 * OUTPUT_TAIL_BYTES as u64;
/// What is kept when nobody asks for less.
pub const OUTPUT_LIMIT_BYTES_MAX: u64 = OUTPUT_KEPT_BYTES_MAX as u64;
/// How long a list of limits may be, as text.
pub const LIMITS_TEXT_BYTES_MAX: usize = KIB;

// --- JavaScript ---------------------------------------------------------------------------------------------

/// What the heap of a JavaScript session may hold when its memory is not limited.
pub const JS_HEAP_BYTES: usize = 1024 * MIB;
/// What it may hold at least, however little memory the session may have.
pub const JS_HEAP_BYTES_MIN: usize = 64 * MIB;
/// When the limit was reached and variables still hold as much: room to let go of them.
pub const JS_HEAP_ROOM_BYTES: usize = 8 * MIB;
/// What the heap may hold above its limit, while the code that went beyond it is being stopped.
pub const JS_HEAP_OVER_BYTES_MAX: usize = 256 * MIB;
/// What the main thread's stack may grow to.
pub const JS_STACK_BYTES: u64 = 64 * MIB as u64;
/// Processor time that code between executions may use without a pause: meanwhile nobody can reach the session.
pub const BACKGROUND_TURN_MS_MAX: u64 = 5_000;
/// Errors that nobody caught and that were not told yet.
pub const UNCAUGHT_ERRORS_MAX: usize = 256;
/// Cells whose text is kept to show the line of an error.
pub const CELL_SOURCES_MAX: usize = 1000;
/// Bytes of the text of these cells.
pub const CELL_SOURCES_BYTES_MAX: usize = 16 * MIB;
/// What is told of the message of an error, and of one line of code.
pub const ERROR_TEXT_BYTES_MAX: usize = 64 * KIB;
/// Lines of the traceback of one error with its causes.
pub const TRACEBACK_LINES_MAX: usize = 400;
/// Columns of a line of code that are shown beside the place of an error.
pub const SOURCE_COLUMNS_MAX: usize = 160;

// --- Checkpoints --------------------------------------------------------------------------------------------

/// Automatic checkpoints that a session keeps, unless it asks for another number.
pub const CHECKPOINTS_KEPT: usize = 8;
/// Checkpoints in memory of one session: each is a process.
pub const CHECKPOINTS_MAX: usize = 64;
/// Durable checkpoints of one session.
pub const BUNDLES_MAX: usize = 256;
/// What only the checkpoints of a session may hold in memory, unless it asks for something else.
pub const CHECKPOINT_BUDGET_BYTES: u64 = 1 << 30;
/// How long a label may be.
pub const CHECKPOINT_LABEL_BYTES_MAX: usize = 200;
/// Sessions that are forked off by one request.
pub const BRANCHES_MAX: usize = 256;
/// What a branch takes along of its parent's files, when nothing else bounds those.
pub const BRANCH_FOLDER_BYTES_MAX: u64 = 16 << 30;
/// Files and folders that a branch takes along.
pub const BRANCH_FILES_MAX: usize = 1 << 20;
/// How deep folders may lie in each other that a branch takes along.
pub const BRANCH_DEPTH_MAX: usize = 100;

/// Brackets within brackets that a JavaScript cell or module may have: the parser's stack ends at some multiple.
pub const JS_BRACKETS_MAX: usize = 400;

/// Operators, calls and statements that hang on each other in one, for the same reason.
pub const JS_CHAIN_MAX: usize = 5_000;
/// Folders of branches that are copied at a time.
pub const BRANCH_COPIES_MAX: usize = 4;
/// Sessions that are tried to be hibernated when memory is short, before the next look at how short it is.
pub const RELIEFS_MAX: usize = 4;
/// Who has had nothing to do for less than this is left alone: an agent that thinks goes on in a moment.
pub const RELIEF_REST_MS: u64 = 30_000;
/// When memory is short, in the words of Linux: some processes waited for it for 150 ms of a second; or, since whoever
/// is not privileged may only ask in steps of two seconds, for 300 ms of two.
pub const PRESSURE_TRIGGERS: [&str; 2] = ["some 150000 1000000", "some 300000 2000000"];
/// Between the wish for a checkpoint in memory and its first word.
pub const FREEZE_MS_MAX: u64 = 30_000;
/// One that is on its way when its worker ends has this long for that.
pub const LAST_FREEZE_MS_MAX: u64 = 5_000;
/// Workers and bundles that are on their way out of one checkpoint.
pub const CHECKPOINT_ORDERS_MAX: usize = 16;
/// What a checkpoint may lack, each said by itself.
pub const FINDINGS_MAX: usize = 64;
/// The word for it.
pub const FINDING_KIND_BYTES_MAX: usize = 64;
/// The sentence.
pub const FINDING_TEXT_BYTES_MAX: usize = KIB;
/// A bundle must be written by then; what takes longer is given up.
pub const SAVE_MS_MAX: u64 = 600_000;
/// A bundle must be read by then: a worker that does not take it in is given up.
pub const LOAD_MS_MAX: u64 = 600_000;
/// What may wait in a session for the next moment at which no code runs.
pub const WISHES_MAX: usize = 64;
/// Numbers of checkpoints that a session reserves at a time.
pub const CHECKPOINT_NUMBERS: u64 = 64;
/// Pieces of bundles: what is stored under one hash.
pub const BUNDLE_PIECE_BYTES: usize = MIB;
/// What a pipe holds through which a bundle travels.
pub const BUNDLE_PIPE_BYTES: usize = MIB;
/// What a worker may say of a bundle that failed.
pub const SENTENCE_BYTES_MAX: usize = 4 * KIB;
/// The description of a bundle.
pub const OUTLINE_BYTES_MAX: usize = 16 * MIB;
/// Blobs of one bundle.
pub const BUNDLE_BLOBS_MAX: usize = 1 << 20;
/// Blobs of bundles that are smaller are stored several together: a file for each would cost more than what is in it.
pub const BUNDLE_SMALL_BYTES_MAX: usize = 64 * KIB;
/// So much of small blobs is stored together, at most: what is written again when one of them has changed.
pub const BUNDLE_PACK_BYTES_MAX: usize = 256 * KIB;
/// Chunks of one bundle: what one commit can name.
pub const BUNDLE_CHUNKS_MAX: usize = 1 << 18;
/// Chunks of one bundle that are read or written at a time.
pub const BUNDLE_CHUNKS_AT_ONCE_MAX: usize = 4;
/// Threads that write bundles of one store at a time.
pub const STORE_CHUNKS_AT_ONCE_MAX: usize = 2 * BUNDLE_CHUNKS_AT_ONCE_MAX;
/// What is signed of a bundle: its outline, and the lists of its blobs and chunks.
pub const BUNDLE_MANIFEST_BYTES_MAX: usize = 64 * MIB;
/// How long a name in an outline may be.
pub const BUNDLE_NAME_BYTES_MAX: usize = 4 * KIB;
/// Bundles leave so much of their disk free, for what else is to be recorded there.
pub const BUNDLE_FREE_BYTES_MIN: u64 = 32 * MIB as u64;
/// Bytes of the bundles of one store: beyond it those of closed sessions go, oldest first, and others are refused.
pub const STORE_BUNDLE_BYTES_MAX: u64 = 64 * 1024 * MIB as u64;
/// Chunks that one step gives up, at most.
pub const CHUNKS_REMOVED_AT_ONCE_MAX: usize = 256;
/// Descriptors that have come beside frames and wait for them.
pub const BESIDE_MAX: usize = 4;
/// How much likelier than the live worker a checkpoint is ended when memory runs out (`oom_score_adj`).
pub const FROZEN_OOM_SCORE: i32 = 500;

// --- Files that the code of a session reaches through its language -------------------------------------------

/// Folders that a session may read, and as many that it may write.
pub const PERMITTED_FOLDERS_MAX: usize = 64;
/// Longest path, as the system has it.
pub const PATH_BYTES_MAX: usize = 4095;
/// Largest module that is imported: its syntax tree takes many times as much.
pub const MODULE_BYTES_MAX: usize = 16 * MIB;
/// Largest file that is read at once: it lies beside the heap until it is handed over.
pub const FILE_BYTES_MAX: usize = 256 * MIB;
/// Entries of a folder that are listed at once.
pub const FOLDER_ENTRIES_MAX: usize = 100_000;

// --- Enforcing them -----------------------------------------------------------------------------------------

/// Between the signal that processor time is used up (SIGXCPU) and the one that cannot be ignored.
pub const CPU_LIMIT_GRACE_S: u64 = 1;
/// So much less than what it counted the system may tell of a process that it has ended for its processor time.
pub const CPU_TOLD_MS: u64 = 100;
/// Address space that numerical libraries reserve per processor without using it: OpenBLAS takes 41 MiB.
pub const RESERVED_BYTES_PER_CPU: u64 = 48 * MIB as u64;
/// All processes of a worker must be gone this long after they were killed.
pub const TREE_KILL_MS_MAX: u64 = 5_000;
/// Processes whose end is awaited at a time; each costs a descriptor.
pub const TREE_PIDFDS_MAX: usize = 128;

const _: () = {
    assert!(HANDSHAKE_FRAME_BYTES_MAX <= PLAIN_FRAME_BYTES_MAX);
    assert!(MESSAGE_BYTES_MAX < REQUEST_FRAME_BYTES_MAX, "every client message must fit in a frame");
    assert!(REQUEST_FRAME_BYTES_MAX < u32::MAX as usize, "the length of a frame is a u32");
    assert!(INTERRUPT_AGAIN_MS < INTERRUPT_GRACE_MS);
    assert!(START_FAILURES_MAX > 2, "one request may lose two workers");
    assert!(RETRY_PAUSE_MS_MIN < RETRY_PAUSE_MS_MAX);
    assert!(LAST_LOOK_BYTES_MAX >= 2 * OUTPUT_PIPE_BYTES, "an end stands behind what both pipes hold");
    assert!(OUTPUT_TAIL_BYTES < OUTPUT_KEPT_BYTES_MAX);
    assert!(STREAM_EVENT_BYTES_MAX <= OUTPUT_TAIL_BYTES);
    assert!(2 * COMMIT_BYTES_MAX as u64 <= BALLAST_BYTES);
    assert!(BUNDLE_SMALL_BYTES_MAX <= BUNDLE_PACK_BYTES_MAX && BUNDLE_PACK_BYTES_MAX <= BUNDLE_PIECE_BYTES);
    // A chunk takes less than 80 bytes of a manifest, the length of a blob less than 16.
    assert!(OUTLINE_BYTES_MAX + 80 * BUNDLE_CHUNKS_MAX + 16 * BUNDLE_BLOBS_MAX < BUNDLE_MANIFEST_BYTES_MAX);
    assert!(
        BUNDLE_FREE_BYTES_MIN
            >= 2 * STORE_FREE_BYTES_MIN + (BUNDLE_CHUNKS_AT_ONCE_MAX * BUNDLE_PIECE_BYTES) as u64
    );
    assert!(PAYLOAD_INLINE_BYTES_MAX < COMMIT_BYTES_MAX);
    assert!(WAL_BYTES_IDLE_MAX < WAL_BYTES_MAX);
    assert!(DISPLAY_FRAME_BYTES_MAX < UNACKNOWLEDGED_BYTES_MAX, "every frame must fit among those kept");
    assert!(MESSAGE_BYTES_MAX <= ZMTP_INBOUND_BYTES_MAX);
    assert!(ZMTP_HALF_OPEN_MAX < ZMTP_PEERS_MAX);
    assert!(AGENT_SEND_AHEAD_BYTES_MAX < ZMTP_PEER_QUEUE_BYTES_MAX, "who waits for room finds some");
    assert!(MESSAGE_BYTES_MAX <= ZMTP_INBOX_BYTES_MAX, "every message must fit in an empty inbox");
    assert!(
        MESSAGE_BYTES_MAX + ZMTP_PEERS_MAX * READ_AHEAD_BYTES_MAX <= ZMTP_INBOUND_BYTES_MAX,
        "one message must fit beside a read-ahead of every peer"
    );
    assert!(MEMORY_LIMIT_BYTES_MIN < MEMORY_LIMIT_BYTES_MAX);
    assert!(OUTPUT_LIMIT_BYTES_MIN < OUTPUT_LIMIT_BYTES_MAX);
};

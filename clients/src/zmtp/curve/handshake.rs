//! HELLO and INITIATE, and what the server answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cob_protocol::limits::CURVE_COOKIE_KEY_MS_MAX;
use crypto_box::SalsaBox;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::key::{PublicKey, SecretKey};
use super::traffic::{Opener, Sealer};
use super::{CurveError, Fields, TAG_BYTES, long_nonce, open_in_place, random, seal_in_place, short_nonce};

/// A server's identity. One for each socket, for as long as that lives.
#[derive(Debug)]
pub struct CurveServer {
    secret: SecretKey,
    public: PublicKey,
    connections: AtomicU64,
    cookies: Mutex<Weak<CookieKey>>,
}

/// Encrypts cookies. It exists while a handshake is under way, and is replaced after a minute of them: whoever finds it
/// later could read what was said before.
struct CookieKey {
    key: SalsaBox,
    made: Instant,
}

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieKey").finish_non_exhaustive()
    }
}

impl CookieKey {
    fn generate() -> Result<Self, CurveError> {
        let secret = SecretKey::generate()?;
        Ok(Self { key: SalsaBox::new(&secret.0.public_key(), &secret.0), made: Instant::now() })
    }
}

impl CurveServer {
    /// A server with that key.
    #[must_use]
    pub fn new(secret: SecretKey) -> Arc<Self> {
        let (public, connections) = (secret.public(), AtomicU64::new(0));
        Arc::new(Self { secret, public, connections, cookies: Mutex::default() })
    }

    /// Begins the handshake of one connection.
    ///
    /// # Errors
    /// [`CurveError::Random`].
    pub fn begin(self: &Arc<Self>) -> Result<Handshake, CurveError> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Handshake { server: Arc::clone(self), number, cookies: self.cookies()? })
    }

    fn cookies(&self) -> Result<Arc<CookieKey>, CurveError> {
        let mut kept = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        let life = Duration::from_millis(CURVE_COOKIE_KEY_MS_MAX);
        match kept.upgrade().filter(|key| key.made.elapsed() < life) {
            Some(key) => Ok(key),
            None => {
                let key = Arc::new(CookieKey::generate()?);
                *kept = Arc::downgrade(&key);
                Ok(key)
            }
        }
    }
}

/// The handshake of one connection. It keeps no key of its own.
#[derive(Debug)]
pub struct Handshake {
    server: Arc<CurveServer>,
    /// Of the connection, in its cookie: another connection has no use for it.
    number: u64,
    cookies: Arc<CookieKey>,
}

/// A client that has proved which key it has, and how to talk to it.
#[derive(Debug)]
pub struct Session {
    /// Its long-term key. Whether that may come in is not said yet.
    pub client: PublicKey,
    /// Its properties, as in READY.
    pub metadata: Bytes,
    /// Opens what it sends.
    pub opener: Opener,
    /// Seals what it is sent, READY first.
    pub sealer: Sealer,
}

impl Handshake {
    /// The body of the WELCOME that answers this body of HELLO.
    ///
    /// # Errors
    /// [`CurveError`] when the client is to be refused.
    pub fn hello(&self, body: &[u8]) -> Result<Bytes, CurveError> {
        let mut fields = Fields::of(body, "HELLO")?;
        if fields.take::<2>()?.first() != Some(&1) {
            return Err(CurveError::Malformed("HELLO"));
        }
        fields.take::<72>()?;
        let client = PublicKey(*fields.take()?);
        let number = u64::from_be_bytes(*fields.take()?);
        let mut proof = *fields.take::<80>()?;
        fields.end()?;
        let key = SalsaBox::new(&client.point(), &self.server.secret.0);
        open_in_place(&key, &short_nonce(b"CurveZMQHELLO---", number), &mut proof, "HELLO")
            .map_err(|_| CurveError::OtherServer)?;
        self.welcome(&client, &key)
    }

    fn welcome(&self, client: &PublicKey, key: &SalsaBox) -> Result<Bytes, CurveError> {
        let short = SecretKey::generate()?;
        let nonce = random::<16>()?;
        let mut boxed = Zeroizing::new(Vec::with_capacity(144));
        boxed.put_bytes(0, TAG_BYTES);
        boxed.put_slice(&short.public().0);
        boxed.put_slice(&self.cookie(client, &short)?);
        seal_in_place(key, &long_nonce(b"WELCOME-", &nonce), &mut boxed)?;
        let mut body = BytesMut::with_capacity(168);
        body.put_slice(b"\x07WELCOME");
        body.put_slice(&nonce);
        body.put_slice(&boxed);
        Ok(body.freeze())
    }

    fn cookie(&self, client: &PublicKey, short: &SecretKey) -> Result<Vec<u8>, CurveError> {
        let mut nonce = [0; 16];
        nonce.as_mut_slice().put_slice(&random::<8>()?);
        if let Some(number) = nonce.last_chunk_mut() {
            *number = self.number.to_be_bytes();
        }
        let mut boxed = Zeroizing::new(Vec::with_capacity(80));
        boxed.put_bytes(0, TAG_BYTES);
        boxed.put_slice(&client.0);
        boxed.put_slice(Zeroizing::new(short.0.to_bytes()).as_slice());
        seal_in_place(&self.cookies.key, &long_nonce(b"COOKIE--", &nonce), &mut boxed)?;
        Ok([nonce.as_slice(), &boxed].concat())
    }

    /// The short-term keys of the client and of ours.
    fn bake(&self, cookie: &[u8; 96]) -> Result<(PublicKey, SecretKey), CurveError> {
        let mut fields = Fields(cookie, "INITIATE");
        let nonce = fields.take::<16>()?;
        let mut boxed = Zeroizing::new(*fields.take::<80>()?);
        if nonce.last_chunk() != Some(&self.number.to_be_bytes()) {
            return Err(CurveError::Cookie);
        }
        open_in_place(&self.cookies.key, &long_nonce(b"COOKIE--", nonce), boxed.as_mut_slice(), "the cookie")
            .map_err(|_| CurveError::Cookie)?;
        let mut fields = Fields(boxed.as_slice(), "INITIATE");
        fields.take::<TAG_BYTES>()?;
        let client = PublicKey(*fields.take()?);
        Ok((client, SecretKey(crypto_box::SecretKey::from_bytes(*fields.take()?))))
    }

    /// Who sent this body of INITIATE.
    ///
    /// # Errors
    /// [`CurveError`] when the client is to be refused.
    pub fn initiate(self, body: &[u8]) -> Result<Session, CurveError> {
        let mut fields = Fields::of(body, "INITIATE")?;
        let (client_short, short) = self.bake(fields.take()?)?;
        let number = u64::from_be_bytes(*fields.take()?);
        let mut boxed = BytesMut::from(fields.0);
        let key = Arc::new(SalsaBox::new(&client_short.point(), &short.0));
        open_in_place(&key, &short_nonce(b"CurveZMQINITIATE", number), &mut boxed, "INITIATE")?;
        let mut fields = Fields(&boxed, "INITIATE");
        fields.take::<TAG_BYTES>()?;
        let client = PublicKey(*fields.take()?);
        let nonce = fields.take::<16>()?;
        let mut vouch = *fields.take::<80>()?;
        let metadata = Bytes::copy_from_slice(fields.0);
        let vouching = SalsaBox::new(&client.point(), &short.0);
        open_in_place(&vouching, &long_nonce(b"VOUCH---", nonce), &mut vouch, "the vouch")?;
        let mut fields = Fields(&vouch, "INITIATE");
        fields.take::<TAG_BYTES>()?;
        if !(client_short.is(fields.take::<32>()?) & self.server.public.is(fields.take::<32>()?)) {
            return Err(CurveError::Unopened("the vouch"));
        }
        Ok(Session {
            client,
            metadata,
            opener: Opener::new(Arc::clone(&key), number),
            sealer: Sealer::new(key),
        })
    }
}

//! One connection between two nodes: what arrives is cut into frames, and what is to be sent is
//! gathered, so that what was said at the same moment leaves with one system call.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use prost::Message;
use purser_proto::peer_v1::Hello;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::frame::{self, BEGIN, Frame, What};

/// What is read at once, at least.
const READ_BYTES_MIN: usize = 16 << 10;
/// Nothing more is put in while so much waits to be sent.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// Before the other side has said who it is, its frames are no longer than this.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// A side that is gone without a word, while nothing is asked of it, is noticed after some of these.
const KEEPALIVE: Duration = Duration::from_secs(15);

pub(super) struct Connection {
    stream: TcpStream,
    arrived: BytesMut,
    unsent: BytesMut,
    body_bytes_max: usize,
}

impl Connection {
    /// A connection on which nothing was said yet.
    pub fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let unsent = BytesMut::from(&BEGIN[..]);
        Ok(Connection { stream, arrived: BytesMut::new(), unsent, body_bytes_max: HELLO_BYTES_MAX })
    }

    /// Waits for the other side's hello, or for why it gives none.
    pub async fn hear_hello(&mut self, body_bytes_max: usize) -> Result<Hello, String> {
        while self.arrived.len() < BEGIN.len() {
            self.arrive().await?;
        }
        if self.arrived[..BEGIN.len()] != BEGIN[..] {
            return Err("what answers is no node of this version".to_owned());
        }
        self.arrived.advance(BEGIN.len());
        let first = loop {
            match self.take()? {
                Some(frame) => break frame,
                None => self.arrive().await?,
            }
        };
        match first.what {
            What::Hello => {
                self.body_bytes_max = body_bytes_max;
                Hello::decode(first.body).map_err(|error| error.to_string())
            }
            What::Refused => Err(String::from_utf8_lossy(&first.body).into_owned()),
            What::Request | What::Answer => Err("the first frame is no hello".to_owned()),
        }
    }

    /// Waits until something has arrived, or there is room for something to be sent.
    async fn arrive(&mut self) -> Result<(), String> {
        self.ready(true).await.map_err(broke)?;
        self.send().map_err(broke)?;
        self.receive()
    }

    /// Sends all that was put in, and waits until the other side's system has it.
    pub async fn send_all(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            self.stream.writable().await?;
            self.send()?;
        }
        Ok(())
    }

    /// Puts a frame behind those that are to be sent.
    pub fn put(&mut self, call: u64, what: What, body: &[u8]) {
        frame::put(&mut self.unsent, call, what, body);
    }

    /// Whether more may be put in.
    pub fn has_room(&self) -> bool {
        self.unsent.len() < UNSENT_BYTES_MAX
    }

    /// Whether anything that was put in has not left.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next frame that has arrived whole.
    pub fn take(&mut self) -> Result<Option<Frame>, String> {
        frame::take(&mut self.arrived, self.body_bytes_max).map_err(|damaged| damaged.to_string())
    }

    /// Waits until the system has something for this side, if `reads`, or takes more of what it has to
    /// send, if anything. One of the two must be so.
    pub async fn ready(&self, reads: bool) -> io::Result<()> {
        let interest = match (reads, self.has_unsent()) {
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
        };
        self.stream.ready(interest).await.map(drop)
    }

    /// Reads what has arrived, if anything has.
    pub fn receive(&mut self) -> Result<(), String> {
        self.arrived.reserve(READ_BYTES_MIN);
        match self.stream.try_read_buf(&mut self.arrived) {
            Ok(0) => Err("it closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(broke(error)),
        }
    }

    /// Sends as much as the system takes now.
    pub fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(sent) => self.unsent.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(super) fn broke(error: io::Error) -> String {
    format!("the connection broke: {error}")
}

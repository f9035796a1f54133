//! The transport between nodes, over real loopback connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use purser_node::cluster::NodeId;
use purser_node::peer::tcp::{PeerOptions, Reception, TcpTransport};
use purser_node::peer::{AddressBook, CallError, Inbox, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_bytes([1; 16]);
/// Longer than any of these calls takes.
const LONG: Duration = Duration::from_secs(30);

fn node(n: u8) -> NodeId {
    NodeId(Uuid::from_bytes([n; 16]))
}

/// Where nodes are; may change.
#[derive(Default)]
struct Book(Mutex<BTreeMap<NodeId, String>>);

impl Book {
    fn put(&self, node: NodeId, address: SocketAddr) {
        self.0.lock().expect("not poisoned").insert(node, address.to_string());
    }
}

impl AddressBook for Book {
    fn peer_address(&self, node: NodeId) -> Option<String> {
        self.0.lock().expect("not poisoned").get(&node).cloned()
    }

    fn moved(&self, node: NodeId, address: String) {
        self.0.lock().expect("not poisoned").insert(node, address);
    }
}

/// Answers `slow` when it is let go, never answers `never`, refuses `no`, answers `long` with more than a
/// message may hold, echoes all else; remembers the
/// order of arrival.
#[derive(Default)]
struct Echo {
    arrived: Mutex<Vec<Bytes>>,
    let_go: Arc<Notify>,
}

impl Inbox for Echo {
    fn receive(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        assert_eq!(from, node(1));
        self.arrived.lock().expect("not poisoned").push(message.clone());
        let let_go = Arc::clone(&self.let_go);
        async move {
            match &message[..] {
                b"slow" => let_go.notified().await,
                b"never" => std::future::pending().await,
                b"no" => return Err("not for me".to_owned()),
                b"long" => return Ok(Bytes::from(vec![0; (16 << 20) + 1])),
                _ => {}
            }
            Ok(message)
        }
        .boxed()
    }
}

/// A node that listens, until it is closed.
struct Listening {
    address: SocketAddr,
    /// What it was told of where others are.
    book: Arc<Book>,
    inbox: Arc<Echo>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

async fn listen(cluster: Uuid, own: NodeId) -> Listening {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let inbox = Arc::new(Echo::default());
    let book = Arc::new(Book::default());
    let (stop, stopped) = watch::channel(false);
    let reception = Reception::new(cluster, own, book.clone(), inbox.clone(), stopped);
    let served = tokio::spawn(reception.serve(listener));
    Listening { address, book, inbox, stop, served }
}

impl Listening {
    async fn close(self) {
        self.stop.send_replace(true);
        self.served.await.expect("no panic");
    }
}

fn dial(book: &Arc<Book>, options: PeerOptions) -> Arc<TcpTransport> {
    TcpTransport::with_options(CLUSTER, node(1), book.clone(), options)
}

/// Calls until it is answered: a peer that comes back is found at the next attempt.
async fn until_answered(transport: &TcpTransport, message: &'static [u8]) -> Bytes {
    loop {
        match transport.call(node(2), Bytes::from_static(message), LONG).await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_arrive_in_order_and_each_gets_its_own_answer() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    let transport = dial(&book, PeerOptions::default());
    let messages: Vec<Bytes> = (0..5_000u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    let calls: Vec<_> =
        messages.iter().map(|message| transport.call(node(2), message.clone(), LONG)).collect();
    let answers: Vec<Bytes> =
        join_all(calls).await.into_iter().map(|answer| answer.expect("answered")).collect();
    assert_eq!(answers, messages);
    assert_eq!(*peer.inbox.arrived.lock().expect("not poisoned"), messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_holds_no_other_up_and_a_refusal_says_why() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    let transport = dial(&book, PeerOptions::default());
    let slow = transport.call(node(2), Bytes::from_static(b"slow"), LONG);
    let quick = transport.call(node(2), Bytes::from_static(b"quick"), LONG).await;
    assert_eq!(quick, Ok(Bytes::from_static(b"quick")));
    let refused = transport.call(node(2), Bytes::from_static(b"no"), LONG).await;
    assert_eq!(refused, Err(CallError::Refused("not for me".to_owned())));
    let long = transport.call(node(2), Bytes::from_static(b"long"), LONG).await;
    assert_eq!(long, Err(CallError::Refused("the answer is too long".to_owned())));
    peer.inbox.let_go.notify_one();
    assert_eq!(slow.await, Ok(Bytes::from_static(b"slow")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_its_time_and_the_connection_goes_on() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    let transport = dial(&book, PeerOptions::default());
    until_answered(&transport, b"there").await;
    let short = Duration::from_millis(20);
    let answer = transport.call(node(2), Bytes::from_static(b"never"), short).await;
    assert_eq!(answer, Err(CallError::TimedOut(short)));
    assert_eq!(until_answered(&transport, b"still").await, Bytes::from_static(b"still"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_goes_away_fails_its_calls_and_is_found_again_at_another_address() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    // A listener that goes may leave the connection to the watchdog.
    let silence_max = Duration::from_millis(200);
    let transport = dial(&book, PeerOptions { silence_max, ..PeerOptions::default() });
    until_answered(&transport, b"there").await;
    let waiting = transport.call(node(2), Bytes::from_static(b"never"), LONG);
    peer.close().await;
    assert!(matches!(waiting.await, Err(CallError::Unreachable(_))));
    let back = listen(CLUSTER, node(2)).await;
    book.put(node(2), back.address);
    assert_eq!(until_answered(&transport, b"again").await, Bytes::from_static(b"again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_says_where_it_is() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    let own = SocketAddr::from(([127, 0, 0, 1], 7));
    book.put(node(1), own);
    until_answered(&dial(&book, PeerOptions::default()), b"hello").await;
    assert_eq!(peer.book.peer_address(node(1)), Some(own.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_another_node_and_an_unknown_address_are_refused_with_the_reason() {
    let book = Arc::new(Book::default());
    let transport = dial(&book, PeerOptions::default());
    let other = listen(Uuid::from_bytes([9; 16]), node(2)).await;
    book.put(node(2), other.address);
    let stranger = listen(CLUSTER, node(7)).await;
    book.put(node(3), stranger.address);
    for (to, why) in [(2, "belongs to cluster"), (3, "means node"), (4, "address is not known")] {
        match transport.call(node(to), Bytes::from_static(b"hello"), LONG).await {
            Err(CallError::Unreachable(told)) => assert!(told.contains(why), "{told}"),
            told => panic!("{told:?}"),
        }
    }
    assert!(other.inbox.arrived.lock().expect("not poisoned").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_requests_and_never_answers_is_given_up_by_the_watchdog() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    let silence_max = Duration::from_millis(100);
    let transport = dial(&book, PeerOptions { silence_max, ..PeerOptions::default() });
    let waiting = transport.call(node(2), Bytes::from_static(b"never"), LONG).await;
    match waiting {
        Err(CallError::Unreachable(_)) => {}
        told => panic!("{told:?}"),
    }
    assert_eq!(until_answered(&transport, b"again").await, Bytes::from_static(b"again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_its_bounds_the_queue_to_a_peer_refuses_at_once() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    let transport = dial(&book, PeerOptions { queue_bytes_max: 1_000, ..PeerOptions::default() });
    let over = transport.call(node(2), Bytes::from(vec![0; 1_001]), LONG).await;
    assert_eq!(over, Err(CallError::Unreachable("the queue to it is full".to_owned())));
    let far_over = transport.call(node(2), Bytes::from(vec![0; (16 << 20) + 1]), LONG).await;
    assert_eq!(far_over, Err(CallError::Unreachable("the message is too long".to_owned())));
    assert_eq!(until_answered(&transport, b"fits").await, Bytes::from_static(b"fits"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_hung_up_on_and_nothing_of_it_reaches_the_inbox() {
    let (book, peer) = (Arc::new(Book::default()), listen(CLUSTER, node(2)).await);
    book.put(node(2), peer.address);
    // A browser; one that begins right and goes on with a frame far too long.
    let strangers =
        [&b"GET / HTTP/1.1\r\nHost: purser\r\n\r\n"[..], b"purser\x02\x00\xff\xff\xff\x7faaaabbbbbbbbc"];
    for said in strangers {
        let mut stranger = TcpStream::connect(peer.address).await.expect("connects");
        stranger.write_all(said).await.expect("said");
        let mut told = Vec::new();
        // Closed, or reset for what was not read.
        let _ = stranger.read_to_end(&mut told).await;
        assert!(b"purser\x02\x00".starts_with(&told[..]), "{told:?}");
    }
    assert_eq!(
        until_answered(&dial(&book, PeerOptions::default()), b"there").await,
        Bytes::from_static(b"there")
    );
    assert_eq!(*peer.inbox.arrived.lock().expect("not poisoned"), [Bytes::from_static(b"there")]);
}

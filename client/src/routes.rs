//! What the client knows of the cluster: its nodes, the shard map, who leads what, who is not well. And
//! from that, whom to ask.
//!
//! Everything here is a cache that may be wrong: a node that does not lead says so, and says who does
//! (of two such hints, the one of the later term is right); a node that cannot be reached is passed over
//! for a while, longer each time; with nothing known, any node will do, since nodes hand calls on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use purser_proto::v1;
use tokio::time::Instant;

use crate::carrier::Route;
use crate::failure::Hint;
use crate::lane::Lane;
use crate::place::{Place, ShardCount};

/// How long a node is passed over after the first failure; it doubles with each,
const PASS_OVER_MIN: Duration = Duration::from_millis(100);
/// this many times at most, to 1.6 s.
const PASS_OVER_DOUBLINGS_MAX: u32 = 4;
/// Most nodes remembered. More than a cluster has: hints cannot fill the memory.
const NODES_MAX: usize = 1_024;

/// A node, and the ways to it.
pub(crate) struct Node {
    pub address: Arc<str>,
    /// Debits for shards that it leads.
    direct: Arc<Lane>,
    /// Debits that it may hand on.
    any: Arc<Lane>,
    /// Microseconds since the client began; passed over before.
    passed_over_until: AtomicU64,
    failures: AtomicU32,
}

impl Node {
    /// The lane for debits by this route.
    pub(crate) fn lane(&self, route: Route) -> &Arc<Lane> {
        match route {
            Route::Direct => &self.direct,
            Route::Any => &self.any,
        }
    }

    /// Whether it is not passed over at a moment, in microseconds since the client began.
    fn is_well(&self, now: u64) -> bool {
        self.passed_over_until.load(Ordering::Relaxed) <= now
    }

    /// It answered.
    fn well(&self) {
        // Nearly always: nothing is written, so that cores do not meet here.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.passed_over_until.store(0, Ordering::Relaxed);
        }
    }
}

/// Whom to ask, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub node: Arc<Node>,
    pub route: Route,
    /// The map should be fetched: it does not say who leads.
    pub blind: bool,
    /// A debit must not be gathered with others: it may take long, and hold up those of other shards.
    pub alone: bool,
    /// The shard's last call got no answer in time.
    stuck: bool,
}

/// What a hint was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    /// Another node is known to lead now: ask it at once.
    pub follow: bool,
    /// The map is old, or does not say who leads.
    pub stale: bool,
}

/// Nodes and shard map.
pub(crate) struct Routes {
    make: Box<dyn Fn(Arc<str>, Route) -> Arc<Lane> + Send + Sync>,
    began: Instant,
    /// With which node to begin where any will do.
    home: u64,
    known: RwLock<Known>,
}

struct Known {
    nodes: BTreeMap<Arc<str>, Arc<Node>>,
    /// Those of the map, then the seeds that are not among them.
    ring: Vec<Arc<Node>>,
    seeds: Vec<Arc<Node>>,
    map: Option<Map>,
}

struct Map {
    cluster_id: String,
    epoch: u64,
    count: ShardCount,
    leaders: Vec<Leader>,
    /// Shards whose last call got no answer in time, though their node may be well.
    stuck: Vec<AtomicBool>,
}

#[derive(Clone, Default)]
struct Leader {
    node: Option<Arc<Node>>,
    term: u64,
}

/// Why a shard map was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("the node belongs to no cluster yet, or its map makes no sense")]
    Senseless,
    #[error("the node belongs to another cluster")]
    Foreign,
    #[error("the map is older than the one known")]
    Older,
}

impl Routes {
    /// Knows the seeds. `make` makes the lane to an address.
    pub(crate) fn new(
        seeds: &[String],
        home: u64,
        began: Instant,
        make: impl Fn(Arc<str>, Route) -> Arc<Lane> + Send + Sync + 'static,
    ) -> Routes {
        let mut known = Known { nodes: BTreeMap::new(), ring: Vec::new(), seeds: Vec::new(), map: None };
        let make = Box::new(make);
        for seed in seeds {
            let node = known.node(seed, &make);
            if !known.seeds.iter().any(|own| Arc::ptr_eq(own, &node)) {
                known.seeds.push(node);
            }
        }
        known.ring.clone_from(&known.seeds);
        Routes { make, began, home, known: RwLock::new(known) }
    }

    /// Whom to ask about a customer: the leader, if it is known and well, else any node that is. `avoid`
    /// is passed over, if there is another.
    pub(crate) fn target(&self, place: Place, avoid: Option<&Arc<Node>>, now: Instant) -> Target {
        let now = self.micros(now);
        let avoided = |node: &Arc<Node>| avoid.is_some_and(|own| Arc::ptr_eq(own, node));
        let well = |node: &&Arc<Node>| node.is_well(now) && !avoided(node);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let shard = known.map.as_ref().map(|map| (map, map.count.shard_of(place)));
        let leader = shard.and_then(|(map, shard)| map.leaders[shard].node.as_ref());
        let stuck = shard.is_some_and(|(map, shard)| map.stuck[shard].load(Ordering::Relaxed));
        if let Some(node) = leader.filter(well) {
            return Target { node: node.clone(), route: Route::Direct, blind: false, alone: stuck, stuck };
        }
        let blind = shard.is_some() && leader.is_none();
        let first = self.home(&known);
        let round = || known.ring[first..].iter().chain(&known.ring[..first]);
        let node =
            round().find(well).or_else(|| round().find(|node| !avoided(node))).or_else(|| round().next());
        let node = node.expect("there is a seed").clone();
        // Nobody is known to be well: the leader may as well be asked as what it is.
        let leads = leader.is_some_and(|own| Arc::ptr_eq(own, &node));
        let route = if leads { Route::Direct } else { Route::Any };
        // What is handed on waits for an election, perhaps. Without a map there is no other way.
        let alone = stuck || (shard.is_some() && !leads);
        Target { node, route, blind, alone, stuck }
    }

    /// Whom to begin with, where any will do.
    fn home(&self, known: &Known) -> usize {
        (self.home % known.ring.len().max(1) as u64) as usize
    }

    /// There was an answer.
    pub(crate) fn answered(&self, target: &Target, place: Place) {
        target.node.well();
        if target.stuck {
            self.set_stuck(place, false);
        }
    }

    /// There was no answer in time: whatever the reason, this shard's debits go alone until there is one.
    pub(crate) fn timed_out(&self, place: Place) {
        self.set_stuck(place, true);
    }

    fn set_stuck(&self, place: Place, stuck: bool) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = &known.map {
            map.stuck[map.count.shard_of(place)].store(stuck, Ordering::Relaxed);
        }
    }

    /// A node did not answer. It is passed over for a while; the answer tells whether there is another
    /// that is well.
    pub(crate) fn ill(&self, node: &Arc<Node>, now: Instant) -> bool {
        let now = self.micros(now);
        let doublings = node.failures.fetch_add(1, Ordering::Relaxed).min(PASS_OVER_DOUBLINGS_MAX);
        let until = now + (PASS_OVER_MIN.as_micros() as u64) * (1 << doublings);
        node.passed_over_until.store(until, Ordering::Relaxed);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.ring.iter().any(|own| own.is_well(now))
    }

    /// Learns from what a node said when it was asked about a customer.
    pub(crate) fn learn(&self, asked: &Target, hint: Hint<'_>, place: Place, now: Instant) -> Learned {
        let now = self.micros(now);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let Some(map) = &known.map else { return Learned { follow: false, stale: false } };
        let shard = map.count.shard_of(place);
        let newer = hint.epoch.is_some_and(|epoch| epoch > map.epoch);
        if !hint.not_leader || hint.shard.is_some_and(|own| own != shard) {
            return Learned { follow: false, stale: newer || hint.not_leader };
        }
        let told = hint.leader.filter(|leader| **leader != *asked.node.address);
        let told = told.map(|leader| known.node(leader, &self.make));
        let Some(map) = &mut known.map else { return Learned { follow: false, stale: false } };
        let leader = &mut map.leaders[shard];
        let term = hint.term.unwrap_or(leader.term);
        if term >= leader.term {
            let is_asked = leader.node.as_ref().is_some_and(|own| Arc::ptr_eq(own, &asked.node));
            match told {
                Some(node) => *leader = Leader { node: Some(node), term },
                // A node that does not know the leader does not speak against another that we know.
                None if is_asked || term > leader.term => *leader = Leader { node: None, term },
                None => {}
            }
        }
        let other = |own: &Arc<Node>| !Arc::ptr_eq(own, &asked.node) && own.is_well(now);
        let follow = leader.node.as_ref().is_some_and(other);
        Learned { follow, stale: newer || leader.node.is_none() }
    }

    /// Takes a shard map. Leaders of later terms that are known already stay.
    pub(crate) fn take(&self, answer: &v1::GetShardMapResponse) -> Result<(), NotTaken> {
        let count = ShardCount::new(answer.shards.len()).ok_or(NotTaken::Senseless)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        if let Some(map) = &known.map {
            let same = map.cluster_id == answer.cluster_id;
            match same && answer.epoch >= map.epoch {
                true => {}
                false if same => return Err(NotTaken::Older),
                false => return Err(NotTaken::Foreign),
            }
        }
        let mut nodes = BTreeMap::new();
        for place in answer.nodes.iter().filter(|place| !place.api_address.is_empty()).take(NODES_MAX) {
            nodes.insert(place.node_id.as_str(), known.node(&place.api_address, &self.make));
        }
        let mut leaders: Vec<Leader> = answer
            .shards
            .iter()
            .map(|shard| Leader { node: nodes.get(shard.leader_node_id.as_str()).cloned(), term: shard.term })
            .collect();
        let mut stuck: Vec<AtomicBool> = answer.shards.iter().map(|_| AtomicBool::new(false)).collect();
        if let Some(before) = known.map.take().filter(|before| before.count == count) {
            stuck = before.stuck;
            for (leader, before) in leaders.iter_mut().zip(before.leaders) {
                let unknown = leader.node.is_none() && before.term == leader.term;
                if before.term > leader.term || unknown {
                    *leader = before;
                }
            }
        }
        let (cluster_id, epoch) = (answer.cluster_id.clone(), answer.epoch);
        known.map = Some(Map { cluster_id, epoch, count, leaders, stuck });
        known.settle(nodes.into_values().collect());
        Ok(())
    }

    /// Whom to ask for the map, in this order: those that are well first.
    pub(crate) fn sources(&self, now: Instant) -> Vec<Arc<Node>> {
        let now = self.micros(now);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut sources = known.ring.clone();
        sources.rotate_left(self.home(&known));
        sources.sort_by_key(|node| !node.is_well(now));
        sources
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_micros() as u64
    }
}

impl Known {
    /// The node at an address, known from now on.
    fn node(&mut self, address: &str, make: &dyn Fn(Arc<str>, Route) -> Arc<Lane>) -> Arc<Node> {
        if let Some(node) = self.nodes.get(address) {
            return node.clone();
        }
        if self.nodes.len() >= NODES_MAX {
            self.settle(self.ring.clone());
        }
        let address: Arc<str> = address.into();
        let node = Arc::new(Node {
            direct: make(address.clone(), Route::Direct),
            any: make(address.clone(), Route::Any),
            address: address.clone(),
            passed_over_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        });
        self.nodes.insert(address, node.clone());
        node
    }

    /// These nodes, the seeds and the leaders are kept, all others forgotten.
    fn settle(&mut self, mut ring: Vec<Arc<Node>>) {
        ring.sort_by(|left, right| left.address.cmp(&right.address));
        ring.dedup_by(|left, right| Arc::ptr_eq(left, right));
        let seeds = self.seeds.iter().filter(|seed| !ring.iter().any(|own| Arc::ptr_eq(own, seed)));
        let seeds: Vec<Arc<Node>> = seeds.cloned().collect();
        ring.extend(seeds);
        let leaders = self.map.iter().flat_map(|map| &map.leaders).filter_map(|leader| leader.node.clone());
        let kept = ring.iter().cloned().chain(leaders).map(|node| (node.address.clone(), node));
        self.nodes = kept.collect();
        self.ring = ring;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane;

    const SEEDS: [&str; 2] = ["a:1", "b:1"];

    fn routes(home: u64) -> Routes {
        let seeds = SEEDS.map(str::to_owned);
        Routes::new(&seeds, home, Instant::now(), lane::tests::unused)
    }

    fn place(id: &str) -> Place {
        Place::of("", id)
    }

    /// Two shards on nodes `n1` to `n3` at `a:1`, `b:1`, `c:1`. "acme" is in shard 1.
    fn map(epoch: u64, leader: &str, term: u64) -> v1::GetShardMapResponse {
        let node = |id: &str, address: &str| v1::NodePlace {
            node_id: id.to_owned(),
            api_address: address.to_owned(),
            ..Default::default()
        };
        let shard = v1::ShardPlace { leader_node_id: leader.to_owned(), term, ..Default::default() };
        v1::GetShardMapResponse {
            cluster_id: "one".to_owned(),
            epoch,
            nodes: vec![node("n1", "a:1"), node("n2", "b:1"), node("n3", "c:1")],
            shards: vec![shard.clone(), shard],
        }
    }

    fn asked(routes: &Routes) -> (String, Route) {
        let target = routes.target(place("acme"), None, Instant::now());
        (target.node.address.to_string(), target.route)
    }

    fn not_leader<'a>(leader: Option<&'a str>, term: u64) -> Hint<'a> {
        Hint { not_leader: true, leader, shard: Some(1), term: Some(term), epoch: Some(1) }
    }

    #[test]
    fn without_a_map_any_seed_is_asked_and_may_hand_the_call_on() {
        assert_eq!(asked(&routes(0)), ("a:1".to_owned(), Route::Any));
        assert_eq!(asked(&routes(3)), ("b:1".to_owned(), Route::Any));
    }

    #[test]
    fn the_leader_of_the_customers_shard_is_asked_directly() {
        let routes = routes(0);
        let mut map = map(1, "n3", 4);
        map.shards[0].leader_node_id = "n1".to_owned();
        routes.take(&map).expect("taken");
        assert_eq!(asked(&routes), ("c:1".to_owned(), Route::Direct));
    }

    #[test]
    fn of_two_hints_the_one_of_the_later_term_is_right() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let target = routes.target(place("acme"), None, Instant::now());
        let learned = routes.learn(&target, not_leader(Some("b:1"), 6), place("acme"), Instant::now());
        assert_eq!(learned, Learned { follow: true, stale: false });
        assert_eq!(asked(&routes).0, "b:1");
        let older = routes.learn(&target, not_leader(Some("a:1"), 5), place("acme"), Instant::now());
        assert_eq!(older, Learned { follow: true, stale: false }, "b:1 is known to lead since");
        assert_eq!(asked(&routes).0, "b:1");
        routes.take(&map(1, "n3", 4)).expect("taken");
        assert_eq!(asked(&routes).0, "b:1", "a map of an earlier term changes nothing");
        routes.take(&map(1, "n1", 7)).expect("taken");
        assert_eq!(asked(&routes).0, "a:1");
    }

    #[test]
    fn a_hint_may_name_a_node_that_no_map_has_named() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let target = routes.target(place("acme"), None, Instant::now());
        let newer = Hint { epoch: Some(2), ..not_leader(Some("d:1"), 5) };
        let learned = routes.learn(&target, newer, place("acme"), Instant::now());
        assert_eq!(learned, Learned { follow: true, stale: true });
        assert_eq!(asked(&routes), ("d:1".to_owned(), Route::Direct));
    }

    #[test]
    fn a_leader_that_leads_no_longer_and_knows_no_other_is_forgotten() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let target = routes.target(place("acme"), None, Instant::now());
        let learned = routes.learn(&target, not_leader(None, 4), place("acme"), Instant::now());
        assert_eq!(learned, Learned { follow: false, stale: true });
        assert_eq!(asked(&routes), ("a:1".to_owned(), Route::Any));
        assert!(routes.target(place("acme"), None, Instant::now()).blind);
    }

    #[test]
    fn a_node_that_names_itself_as_the_leader_while_it_refuses_is_not_followed() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let target = routes.target(place("acme"), None, Instant::now());
        assert!(!routes.learn(&target, not_leader(Some("c:1"), 4), place("acme"), Instant::now()).follow);
    }

    #[test]
    fn a_node_that_does_not_answer_is_passed_over_for_longer_each_time_and_comes_back() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let (place, now) = (place("acme"), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        let who = |at: Instant| {
            let target = routes.target(place, None, at);
            (target.node.address.to_string(), target.route)
        };
        let leader = routes.target(place, None, now).node;
        assert!(routes.ill(&leader, now), "others are well");
        assert_eq!(who(after(99)), ("a:1".to_owned(), Route::Any));
        assert_eq!(who(after(101)), ("c:1".to_owned(), Route::Direct));
        routes.ill(&leader, after(101));
        assert_eq!(who(after(300)).0, "a:1");
        assert_eq!(who(after(302)).0, "c:1");
        routes.ill(&leader, after(302));
        leader.well();
        assert_eq!(who(after(303)).0, "c:1", "an answer ends it");
    }

    #[test]
    fn with_nobody_well_the_call_is_still_made() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let now = Instant::now();
        for node in routes.sources(now) {
            routes.ill(&node, now);
        }
        let target = routes.target(place("acme"), None, now);
        let next = routes.target(place("acme"), Some(&target.node), now);
        assert_ne!(target.node.address, next.node.address, "another one is tried next");
    }

    #[test]
    fn a_leader_that_is_passed_over_is_not_followed_because_another_node_knows_none() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let now = Instant::now();
        routes.ill(&routes.target(place("acme"), None, now).node, now);
        let other = routes.target(place("acme"), None, now);
        assert_eq!((&*other.node.address, other.route), ("a:1", Route::Any));
        assert!(!routes.learn(&other, not_leader(None, 4), place("acme"), now).follow);
    }

    #[test]
    fn debits_that_may_take_long_go_alone() {
        let routes = routes(0);
        let (place, now) = (place("acme"), Instant::now());
        let alone = || routes.target(place, None, now).alone;
        assert!(!alone(), "without a map all are handed on");
        routes.take(&map(1, "n3", 4)).expect("taken");
        assert!(!alone(), "the leader is known and well");
        routes.timed_out(place);
        assert!(alone(), "its last call got no answer in time");
        routes.take(&map(2, "n3", 4)).expect("taken");
        assert!(alone(), "a new map does not change that");
        routes.answered(&routes.target(place, None, now), place);
        assert!(!alone());
        routes.ill(&routes.target(place, None, now).node, now);
        assert!(alone(), "another node has to hand it on, and may have to wait for an election");
    }

    #[test]
    fn maps_that_are_older_foreign_or_senseless_are_not_taken() {
        let routes = routes(0);
        routes.take(&map(2, "n3", 4)).expect("taken");
        assert_eq!(routes.take(&map(1, "n1", 9)), Err(NotTaken::Older));
        let foreign = v1::GetShardMapResponse { cluster_id: "two".to_owned(), ..map(3, "n1", 9) };
        assert_eq!(routes.take(&foreign), Err(NotTaken::Foreign));
        assert_eq!(routes.take(&v1::GetShardMapResponse::default()), Err(NotTaken::Senseless));
        assert_eq!(asked(&routes).0, "c:1");
    }

    #[test]
    fn nodes_that_leave_the_cluster_are_forgotten_but_not_the_seeds() {
        let routes = routes(0);
        routes.take(&map(1, "n3", 4)).expect("taken");
        let mut smaller = map(2, "n1", 5);
        smaller.nodes.truncate(1);
        routes.take(&smaller).expect("taken");
        let left: Vec<String> =
            routes.sources(Instant::now()).iter().map(|own| own.address.to_string()).collect();
        assert_eq!(left, ["a:1", "b:1"]);
    }
}

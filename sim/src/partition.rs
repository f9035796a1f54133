//! Partitions: which links are cut, in which direction, and how steady they are.
//!
//! A shape says who is kept from whom; it is drawn anew each time. A partition lasts as long as it is
//! drawn to, and may flap: cut and mended again and again, with spells so short that an election hardly
//! fits in one.

use std::ops::RangeInclusive;
use std::time::Duration;

use purser_node::cluster::NodeId;

use crate::dice::Dice;
use crate::network::Link;

/// How long a partition lasts.
const APART: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(5);
/// How long a steady one lasts, one time in four, in a world where they are not all alike.
const APART_LONG: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(20);
/// A spell of one that flaps, cut or mended.
const SPELL: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(1_500);
/// How often one that flaps is cut.
const FLAPS: RangeInclusive<u64> = 2..=8;

/// Who is kept from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One node and some others, callers too, each in one direction or in both.
    Around,
    /// One node, that hears nobody or is heard by nobody.
    OneWay,
    /// Everybody is on one of two or three islands; or one island hears the others, and not they it.
    Islands,
    /// Two islands, and one node that reaches both.
    Bridge,
    /// One node and the leader of one of its groups, and nobody else.
    FromLeader,
    /// Nodes stand in a ring, and each reaches its two neighbours.
    Ring,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 6] =
        [Shape::Around, Shape::OneWay, Shape::Islands, Shape::Bridge, Shape::FromLeader, Shape::Ring];

    /// What it is called in the counts.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Around => "partition: around a node",
            Shape::OneWay => "partition: one way",
            Shape::Islands => "partition: islands",
            Shape::Bridge => "partition: bridge",
            Shape::FromLeader => "partition: from the leader",
            Shape::Ring => "partition: ring",
        }
    }
}

/// How partitions are in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionWorld {
    /// The shapes that there are.
    pub shapes: Vec<Shape>,
    /// So many of a thousand flap; none does, and none is long, where there is only one shape.
    pub flapping: u64,
}

impl PartitionWorld {
    /// Partitions around one node, each as long as it is drawn to be.
    pub fn plain() -> PartitionWorld {
        PartitionWorld { shapes: vec![Shape::Around], flapping: 0 }
    }

    /// Some of the shapes, two at least.
    pub fn drawn(dice: &mut Dice) -> PartitionWorld {
        let mut shapes: Vec<Shape> = Shape::ALL.into_iter().filter(|_| dice.chance(500)).collect();
        while shapes.len() < 2 {
            let shape = *dice.pick(&Shape::ALL);
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        PartitionWorld { shapes, flapping: *dice.pick(&[0, 200, 600]) }
    }

    /// The shape of the next one.
    pub fn shape(&self, dice: &mut Dice) -> Shape {
        match self.shapes.as_slice() {
            [only] => *only,
            several => *dice.pick(several),
        }
    }

    /// How long the next one is cut, and then mended, one after the other; the last one stays mended.
    pub fn spells(&self, dice: &mut Dice) -> Vec<(Duration, Duration)> {
        if self.shapes.len() == 1 {
            return vec![(dice.span(&APART), Duration::ZERO)];
        }
        if dice.chance(self.flapping) {
            let flaps = dice.within(FLAPS);
            return (0..flaps).map(|_| (dice.span(&SPELL), dice.span(&SPELL))).collect();
        }
        let apart = if dice.chance(250) { APART_LONG } else { APART };
        vec![(dice.span(&apart), Duration::ZERO)]
    }
}

/// Who there is on the network when it is cut.
#[derive(Clone, Debug)]
pub struct People<'p> {
    /// The nodes.
    pub nodes: &'p [NodeId],
    /// Nodes, then callers.
    pub everybody: &'p [NodeId],
    /// The node that was struck.
    pub struck: NodeId,
    /// The leaders of its groups, as far as it knows and but for itself.
    pub leaders: &'p [NodeId],
}

/// The links that a shape cuts; none, where it cannot be made.
pub fn links(shape: Shape, people: &People<'_>, dice: &mut Dice) -> Vec<Link> {
    match shape {
        Shape::Around => around(people, dice),
        Shape::OneWay => one_way(people, dice),
        Shape::Islands => islands(people, dice),
        Shape::Bridge => bridge(people, dice),
        Shape::FromLeader => from_leader(people, dice),
        Shape::Ring => ring(people),
    }
}

fn others<'p>(people: &'p People<'_>) -> impl Iterator<Item = NodeId> + 'p {
    people.everybody.iter().copied().filter(|other| *other != people.struck)
}

fn around(people: &People<'_>, dice: &mut Dice) -> Vec<Link> {
    let mut cut = Vec::new();
    for other in others(people) {
        if dice.chance(600) {
            let ways = dice.within(0..=2);
            cut.extend((ways != 1).then_some((people.struck, other)));
            cut.extend((ways != 2).then_some((other, people.struck)));
        }
    }
    cut
}

fn one_way(people: &People<'_>, dice: &mut Dice) -> Vec<Link> {
    let hears_nobody = dice.chance(500);
    let link = |other| if hears_nobody { (other, people.struck) } else { (people.struck, other) };
    others(people).map(link).collect()
}

/// The links between those of different islands, where `island` says who is on which.
fn between(everybody: &[NodeId], island: &[u64], passes: impl Fn(usize, usize) -> bool) -> Vec<Link> {
    let mut cut = Vec::new();
    for (from, own) in everybody.iter().zip(island).enumerate() {
        for (to, other) in everybody.iter().zip(island).enumerate() {
            if own.1 != other.1 && !passes(from, to) {
                cut.push((*own.0, *other.0));
            }
        }
    }
    cut
}

fn islands(people: &People<'_>, dice: &mut Dice) -> Vec<Link> {
    let count = if dice.chance(700) { 2 } else { 3 };
    let island: Vec<u64> = people.everybody.iter().map(|_| dice.within(0..=count - 1)).collect();
    let one_way = dice.chance(250);
    // The first island is heard by the others, where it is one way.
    between(people.everybody, &island, |from, _| one_way && island[from] == 0)
}

fn bridge(people: &People<'_>, dice: &mut Dice) -> Vec<Link> {
    let island: Vec<u64> = people.everybody.iter().map(|_| dice.within(0..=1)).collect();
    let is_bridge = |place: usize| people.everybody[place] == people.struck;
    between(people.everybody, &island, |from, to| is_bridge(from) || is_bridge(to))
}

fn from_leader(people: &People<'_>, dice: &mut Dice) -> Vec<Link> {
    if people.leaders.is_empty() {
        return Vec::new();
    }
    let leader = *dice.pick(people.leaders);
    let ways = dice.within(0..=2);
    let there = (ways != 1).then_some((people.struck, leader));
    let back = (ways != 2).then_some((leader, people.struck));
    there.into_iter().chain(back).collect()
}

/// Callers reach everybody.
fn ring(people: &People<'_>) -> Vec<Link> {
    let count = people.nodes.len();
    let are_neighbours = |from: usize, to: usize| {
        let apart = from.abs_diff(to);
        apart == 1 || apart + 1 == count
    };
    let island: Vec<u64> = (0..count as u64).collect();
    between(people.nodes, &island, are_neighbours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn id(number: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(number))
    }

    /// Five nodes, of which the second is struck, and two callers; the fourth node leads.
    fn cut(shape: Shape, seed: u64) -> BTreeSet<Link> {
        let everybody: Vec<NodeId> = (1..=7).map(id).collect();
        let people =
            People { nodes: &everybody[..5], everybody: &everybody, struck: id(2), leaders: &[id(4)] };
        links(shape, &people, &mut Dice::new(seed, "test")).into_iter().collect()
    }

    #[test]
    fn nobody_is_cut_off_from_itself_and_every_shape_cuts_something() {
        for shape in Shape::ALL {
            let all: Vec<Link> = (0..50).flat_map(|seed| cut(shape, seed)).collect();
            assert!(!all.is_empty() && all.iter().all(|(from, to)| from != to), "{shape:?}: {all:?}");
        }
    }

    #[test]
    fn one_way_is_all_of_one_direction() {
        let (deaf, mute): (BTreeSet<Link>, BTreeSet<Link>) =
            ([1, 3, 4, 5, 6, 7].map(|other| (id(other), id(2))).into(), {
                [1, 3, 4, 5, 6, 7].map(|other| (id(2), id(other))).into()
            });
        let seen: Vec<BTreeSet<Link>> = (0..20).map(|seed| cut(Shape::OneWay, seed)).collect();
        assert!(seen.iter().all(|own| *own == deaf || *own == mute));
        assert!(seen.contains(&deaf) && seen.contains(&mute));
    }

    #[test]
    fn the_bridge_reaches_everybody_and_those_on_its_sides_only_through_it() {
        let seen = (0..50).map(|seed| cut(Shape::Bridge, seed));
        for own in seen {
            assert!(own.iter().all(|(from, to)| *from != id(2) && *to != id(2)));
            assert!(own.iter().all(|(from, to)| own.contains(&(*to, *from))), "both ways");
        }
    }

    #[test]
    fn islands_hear_each_other_in_no_direction_or_in_one() {
        let one_way = |own: &BTreeSet<Link>| own.iter().any(|(from, to)| !own.contains(&(*to, *from)));
        let seen: Vec<BTreeSet<Link>> = (0..50).map(|seed| cut(Shape::Islands, seed)).collect();
        assert!(seen.iter().any(one_way) && !seen.iter().all(one_way));
    }

    #[test]
    fn a_ring_keeps_two_neighbours_each_and_touches_no_caller() {
        let own = cut(Shape::Ring, 1);
        for number in 1..=5 {
            assert_eq!(own.iter().filter(|(from, _)| *from == id(number)).count(), 2);
        }
        assert!(own.contains(&(id(1), id(3))) && !own.contains(&(id(1), id(5))));
        assert_eq!(own.len(), 10);
    }

    #[test]
    fn a_node_is_kept_from_the_leader_alone() {
        for seed in 0..20 {
            let own = cut(Shape::FromLeader, seed);
            assert!(!own.is_empty() && own.is_subset(&[(id(2), id(4)), (id(4), id(2))].into()));
        }
    }
}

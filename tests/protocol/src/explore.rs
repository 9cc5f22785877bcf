//! Walks a model's whole space: nothing forbidden is reachable, and from everywhere there is a way back.

use stateright::{Checker as _, HasDiscoveries, Model, Path};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// A model that tells faults from what the system does by itself.
pub trait Healable: Model {
    /// Whether this step is a fault, or a matter of chance that nobody may count on.
    fn is_fault(&self, state: &Self::State, action: &Self::Action) -> bool;

    /// Whether clients are served, or the state is a pause with a name.
    fn is_well(&self, state: &Self::State) -> bool;
}

/// How large a space is that was walked to its end.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// States that differ.
    pub states: usize,
    /// Longest of the shortest ways to a state, steps.
    pub depth: usize,
}

/// Walks the whole space in search of a violation of a property.
///
/// # Errors
/// The shortest way to a violation, with its name, one step a line.
pub fn safe<M>(model: M) -> Result<Size, String>
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + Eq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    // The checker stops looking at a property as soon as each has a discovery; examples are no failures.
    let failed = checker
        .model()
        .properties()
        .into_iter()
        .find_map(|property| {
            let failure = property.expectation.discovery_is_failure();
            let path = checker.discovery(property.name).filter(|_| failure)?;
            Some(format!("{}:\n{}", property.name, steps(path)))
        });
    let missed = checker.model().properties().into_iter().find(|property| {
        let example = !property.expectation.discovery_is_failure();
        example && checker.discovery(property.name).is_none()
    });
    match failed.or_else(|| missed.map(|property| format!("never: {}", property.name))) {
        Some(text) => Err(text),
        None => Ok(Size {
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
        }),
    }
}

fn steps<S: Debug, A: Debug>(path: Path<S, A>) -> String {
    let mut text = String::new();
    let path = path.into_vec();
    let last = path.len() - 1;
    for (step, (state, action)) in path.into_iter().enumerate() {
        if step == 0 || step == last {
            text.push_str(&format!("  {state:?}\n"));
        }
        if let Some(action) = action {
            text.push_str(&format!("- {action:?}\n"));
        }
    }
    text
}

/// Where a state stands in the walk.
struct Known {
    from: u32,
    depth: u32,
}

/// Walks the whole space and looks from every state for a way to a good one without any fault.
///
/// # Errors
/// The way to a state that has none.
///
/// # Panics
/// If the space has 2^32 states.
pub fn heals<M>(model: &M) -> Result<Size, String>
where
    M: Healable,
    M::State: Clone + Debug + Hash + Eq,
    M::Action: Clone + Debug,
{
    let mut numbers: HashMap<u64, u32> = HashMap::new();
    let mut known: Vec<Known> = Vec::new();
    let mut well: Vec<u32> = Vec::new();
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut frontier: Vec<(u32, M::State)> = Vec::new();
    for state in model.init_states() {
        note(
            model,
            &state,
            (u32::MAX, 0),
            &mut numbers,
            &mut known,
            &mut well,
        );
        frontier.push((number(known.len() - 1), state));
    }
    let mut depth = 0;
    while !frontier.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for (from, state) in frontier {
            let mut actions = Vec::new();
            model.actions(&state, &mut actions);
            for action in actions {
                let fault = model.is_fault(&state, &action);
                let Some(to) = model.next_state(&state, action) else {
                    continue;
                };
                let seen = numbers.get(&print(&to)).copied();
                let to_number = seen.unwrap_or_else(|| {
                    note(
                        model,
                        &to,
                        (from, depth),
                        &mut numbers,
                        &mut known,
                        &mut well,
                    );
                    let fresh = number(known.len() - 1);
                    next.push((fresh, to));
                    fresh
                });
                if !fault && to_number != from {
                    edges.push((to_number, from));
                }
            }
        }
        frontier = next;
    }
    match lost(known.len(), &well, &mut edges) {
        None => Ok(Size {
            states: known.len(),
            depth: depth as usize,
        }),
        Some(_) if well.is_empty() => Err("no state is well".to_owned()),
        Some(_) => Err(retrace(model, &known, &numbers, &well, &mut edges)),
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| panic!("more states than can be counted"))
}

fn print<S: Hash>(state: &S) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn note<M>(
    model: &M,
    state: &M::State,
    (from, depth): (u32, u32),
    numbers: &mut HashMap<u64, u32>,
    known: &mut Vec<Known>,
    well: &mut Vec<u32>,
) where
    M: Healable,
    M::State: Hash,
{
    let mine = number(known.len());
    numbers.insert(print(state), mine);
    known.push(Known { from, depth });
    if model.is_well(state) {
        well.push(mine);
    }
}

/// Which states lead to a good one, backwards from those.
fn saved(states: usize, well: &[u32], edges: &mut [(u32, u32)]) -> Vec<bool> {
    edges.sort_unstable();
    let mut saved = vec![false; states];
    let mut queue: Vec<u32> = well.to_vec();
    for state in well {
        saved[*state as usize] = true;
    }
    while let Some(to) = queue.pop() {
        let first = edges.partition_point(|edge| edge.0 < to);
        for (_, from) in edges[first..].iter().take_while(|edge| edge.0 == to) {
            if !std::mem::replace(&mut saved[*from as usize], true) {
                queue.push(*from);
            }
        }
    }
    saved
}

/// The first state from which there is no way.
fn lost(states: usize, well: &[u32], edges: &mut [(u32, u32)]) -> Option<u32> {
    let saved = saved(states, well, edges);
    saved.iter().position(|saved| !saved).map(number)
}

fn retrace<M>(
    model: &M,
    known: &[Known],
    numbers: &HashMap<u64, u32>,
    well: &[u32],
    edges: &mut [(u32, u32)],
) -> String
where
    M: Healable,
    M::State: Debug + Hash,
    M::Action: Clone + Debug,
{
    let saved = saved(known.len(), well, edges);
    let stuck = saved.iter().filter(|saved| !**saved).count();
    let Some(target) = lost(known.len(), well, edges) else {
        return String::new();
    };
    let mut way = vec![target];
    let mut at = &known[target as usize];
    while at.from != u32::MAX {
        way.push(at.from);
        at = &known[at.from as usize];
    }
    way.reverse();
    let length = known[target as usize].depth;
    let mut text = format!("stuck: {stuck} states, the nearest after {length} steps:\n");
    let start = model.init_states().into_iter();
    let mut state = start
        .into_iter()
        .find(|state| numbers.get(&print(state)) == way.first());
    for next in way.iter().skip(1) {
        let Some(from) = state.take() else { break };
        let mut actions = Vec::new();
        model.actions(&from, &mut actions);
        for action in actions {
            let to = model.next_state(&from, action.clone());
            if to.as_ref().and_then(|to| numbers.get(&print(to))) == Some(next) {
                text.push_str(&format!("- {action:?}\n"));
                state = to;
                break;
            }
        }
    }
    text.push_str(&format!("  {state:?}\n"));
    text
}

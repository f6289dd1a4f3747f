//! Inode numbers: given when a node is first looked up, and free again once the kernel forgets it.

use std::collections::HashMap;
use std::hash::Hash;

/// Which node has which number.
#[derive(Debug)]
pub struct Inodes<N> {
    numbers: HashMap<N, u64>,
    nodes: HashMap<u64, (N, u64)>,
    next: u64,
}

impl<N: Clone + Eq + Hash> Inodes<N> {
    /// With `root` as number 1, which is never forgotten.
    pub fn new(root: N) -> Self {
        Self {
            numbers: HashMap::from([(root.clone(), 1)]),
            nodes: HashMap::from([(1, (root, 1))]),
            next: 2,
        }
    }

    pub fn node(&self, number: u64) -> Option<&N> {
        self.nodes.get(&number).map(|(node, _)| node)
    }

    /// Its number, for a look-up that the kernel will forget one day.
    pub fn look_up(&mut self, node: N) -> u64 {
        if let Some(&number) = self.numbers.get(&node) {
            if let Some((_, count)) = self.nodes.get_mut(&number) {
                *count += 1;
            }
            return number;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(node.clone(), number);
        self.nodes.insert(number, (node, 1));
        number
    }

    pub fn forget(&mut self, number: u64, times: u64) {
        let Some((node, count)) = self.nodes.get_mut(&number) else {
            return;
        };
        *count = count.saturating_sub(times);
        if *count == 0 && number != 1 {
            self.numbers.remove(&node.clone());
            self.nodes.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lasts_as_long_as_it_is_known() {
        let mut inodes = Inodes::new("root");
        let a = inodes.look_up("a");
        assert_eq!(inodes.look_up("a"), a);
        inodes.forget(a, 1);
        assert_eq!(inodes.node(a), Some(&"a"));
        inodes.forget(a, 1);
        assert_eq!(inodes.node(a), None);
        assert_ne!(inodes.look_up("a"), a, "never another node's");
        inodes.forget(1, 100);
        assert_eq!(inodes.node(1), Some(&"root"));
    }
}

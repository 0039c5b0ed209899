//! Finding where two replicas differ, at a cost that follows the difference.

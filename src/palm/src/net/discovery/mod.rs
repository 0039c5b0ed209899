//! Who is there: pools and peers on this network.

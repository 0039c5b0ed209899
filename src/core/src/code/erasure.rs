//! Reed-Solomon over the shards of one stripe.
//!
//! Encoding is `reed-solomon-simd`'s, an FFT over GF(2^16). Its decoder is made for thousands of shards:
//! it evaluates a polynomial over the whole field, half a millisecond for a stripe of any size, which
//! would cap degraded reads of small objects at 2,000 a second per core. With at most 64 shards plain linear
//! algebra is far cheaper, and it is the same code: each parity shard is a sum of the data shards with fixed
//! coefficients, which we ask the encoder for once; solving for the missing data shards gives
//! each as a sum of k shards at hand. (The tests compare what it restores with what was encoded.)

use bytes::{Bytes, BytesMut};
use reed_solomon_simd::ReedSolomonEncoder;
use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_MODULUS, GfElement, tables, utils};

use super::CodeError;
use crate::place::{MAX_FRAGMENTS, Policy};

/// The engine works on chunks of 32 symbols: their low bytes, then their high bytes.
const CHUNK_BYTES: usize = 64;
/// Chunks summed up at a time: two blocks of 4 KiB stay in the first-level cache.
const BLOCK_CHUNKS: usize = 64;

/// The shards of a stripe that are at hand, by index; all of one length.
pub(super) type Slots<'a> = [Option<&'a Bytes>; MAX_FRAGMENTS];

/// The erasure code of one policy, with its working memory.
pub(super) struct Erasure {
    k: usize,
    parity: usize,
    encoder: Option<ReedSolomonEncoder>,
    solver: Option<Solver>,
}

impl Erasure {
    pub(super) fn new(policy: Policy) -> Self {
        let (k, n) = (usize::from(policy.k), usize::from(policy.n));
        Self { k, parity: n - k, encoder: None, solver: None }
    }

    /// The n - k parity shards of these k data shards, slices of one buffer.
    pub(super) fn parity(&mut self, data: &[Bytes]) -> Result<Vec<Bytes>, CodeError> {
        let Some(first) = data.first() else { return Ok(Vec::new()) };
        // One data shard: the others are copies of it, and share its buffer.
        if self.k == 1 || self.parity == 0 {
            return Ok(vec![first.clone(); self.parity]);
        }
        let shard = first.len();
        let encoder = encoder(&mut self.encoder, self.k, self.parity, shard)?;
        for shard in data {
            encoder.add_original_shard(shard)?;
        }
        let encoded = encoder.encode()?;
        let mut parity = BytesMut::with_capacity(self.parity * shard);
        for bytes in encoded.recovery_iter() {
            parity.extend_from_slice(bytes);
        }
        let mut parity = parity.freeze();
        Ok((0..self.parity).map(|_| parity.split_to(shard)).collect())
    }

    /// The k data shards: those at hand as they are, the missing ones computed into one buffer.
    pub(super) fn data(&mut self, slots: &Slots<'_>) -> Result<Vec<Bytes>, CodeError> {
        let (k, n) = (self.k, self.k + self.parity);
        let have = slots.iter().flatten().count();
        if have < k {
            return Err(CodeError::NotEnough { have, need: k });
        }
        let missing: Vec<usize> = (0..k).filter(|&index| slots[index].is_none()).collect();
        if k == 1 || missing.is_empty() {
            return Ok(slots.iter().flatten().take(k).map(|&shard| shard.clone()).collect());
        }
        let rows: Vec<usize> = (k..n).filter(|&index| slots[index].is_some()).take(missing.len()).collect();
        let shards: Vec<&Bytes> =
            slots[..k].iter().flatten().chain(rows.iter().filter_map(|&row| slots[row].as_ref())).copied().collect();

        let solver = match &mut self.solver {
            Some(solver) => solver,
            none => none.insert(Solver::new(&mut self.encoder, k, self.parity)?),
        };
        let shard = shards[0].len();
        let mut restored = BytesMut::zeroed(missing.len() * shard);
        for (out, coefficients) in restored.chunks_exact_mut(shard).zip(solver.solve(&missing, &rows)) {
            solver.combine(&coefficients, &shards, out);
        }
        let mut restored = restored.freeze();
        Ok(slots[..k].iter().map(|slot| slot.map_or_else(|| restored.split_to(shard), Bytes::clone)).collect())
    }
}

/// The encoder, made when first needed and ready for shards of this length.
fn encoder(
    slot: &mut Option<ReedSolomonEncoder>,
    k: usize,
    parity: usize,
    shard: usize,
) -> Result<&mut ReedSolomonEncoder, CodeError> {
    Ok(match slot {
        Some(encoder) => {
            encoder.reset(k, parity, shard)?;
            encoder
        }
        none => none.insert(ReedSolomonEncoder::new(k, parity, shard)?),
    })
}

/// Finds missing data shards as sums of shards at hand.
struct Solver {
    engine: DefaultEngine,
    field: &'static tables::ExpLog,
    k: usize,
    /// Row r: the coefficients of the data shards in parity shard r.
    generator: Vec<Vec<GfElement>>,
}

impl Solver {
    /// Asks the encoder for its coefficients: the parity of a one in data shard j, and zeros else, is
    /// column j.
    fn new(slot: &mut Option<ReedSolomonEncoder>, k: usize, parity: usize) -> Result<Self, CodeError> {
        let mut generator = vec![Vec::with_capacity(k); parity];
        let encoder = encoder(slot, k, parity, size_of::<GfElement>())?;
        for column in 0..k {
            for index in 0..k {
                encoder.add_original_shard(GfElement::from(index == column).to_le_bytes())?;
            }
            for (row, symbol) in generator.iter_mut().zip(encoder.encode()?.recovery_iter()) {
                row.push(GfElement::from_le_bytes([symbol[0], symbol[1]]));
            }
        }
        Ok(Self { engine: DefaultEngine::new(), field: tables::get_exp_log(), k, generator })
    }

    fn multiply(&self, a: GfElement, b: GfElement) -> GfElement {
        if b == 0 {
            return 0;
        }
        tables::mul(a, self.field.log[usize::from(b)], &self.field.exp, &self.field.log)
    }

    /// Of a number that is not 0.
    fn invert(&self, a: GfElement) -> GfElement {
        self.field.exp[usize::from(GF_MODULUS - self.field.log[usize::from(a)])]
    }

    /// For each `missing` data shard, its coefficients over the data shards at hand in order, followed by
    /// the parity shards `rows` (indices from k on), of which there are as many as are missing.
    ///
    /// With D the missing and E the present data shards: `parity = A D + B E`, so
    /// `D = A^-1 parity + A^-1 B E` (in this field minus is plus). Gauss-Jordan elimination turns
    /// `[A | B | 1]` into `[1 | A^-1 B | A^-1]`. It needs no search for pivots: every square part of the
    /// generator is regular (that is what lets any k shards do), so none comes out as 0.
    fn solve(&self, missing: &[usize], rows: &[usize]) -> Vec<Vec<GfElement>> {
        let present: Vec<usize> = (0..self.k).filter(|index| !missing.contains(index)).collect();
        let mut system: Vec<Vec<GfElement>> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| {
                let generator = &self.generator[row - self.k];
                let data = missing.iter().chain(&present).map(|&index| generator[index]);
                data.chain((0..rows.len()).map(|column| GfElement::from(column == at))).collect()
            })
            .collect();
        for step in 0..missing.len() {
            let scale = self.invert(system[step][step]);
            for value in &mut system[step] {
                *value = self.multiply(*value, scale);
            }
            let pivot = system[step].clone();
            for (_, row) in system.iter_mut().enumerate().filter(|&(row, _)| row != step) {
                let factor = row[step];
                for (value, pivot) in row.iter_mut().zip(&pivot) {
                    *value ^= self.multiply(*pivot, factor);
                }
            }
        }
        system.into_iter().map(|mut row| row.split_off(missing.len())).collect()
    }

    /// Writes to `out` the sum of the shards, each times its coefficient.
    fn combine(&self, coefficients: &[GfElement], shards: &[&Bytes], out: &mut [u8]) {
        let mut sum = [[0; CHUNK_BYTES]; BLOCK_CHUNKS];
        let mut term = [[0; CHUNK_BYTES]; BLOCK_CHUNKS];
        for (block, out) in out.chunks_mut(BLOCK_CHUNKS * CHUNK_BYTES).enumerate() {
            let start = block * BLOCK_CHUNKS * CHUNK_BYTES;
            let chunks = out.len().div_ceil(CHUNK_BYTES);
            let (sum, term) = (&mut sum[..chunks], &mut term[..chunks]);
            sum.fill([0; CHUNK_BYTES]);
            for (&coefficient, shard) in coefficients.iter().zip(shards) {
                if coefficient == 0 {
                    continue;
                }
                load(term, &shard[start..start + out.len()]);
                self.engine.mul(term, self.field.log[usize::from(coefficient)]);
                utils::xor(sum, term);
            }
            store(sum, out);
        }
    }
}

/// Fills chunks from bytes. A last chunk that is not full keeps half of its bytes as low and half as high
/// ones: the encoder's layout.
fn load(chunks: &mut [[u8; CHUNK_BYTES]], bytes: &[u8]) {
    let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % CHUNK_BYTES);
    chunks.as_flattened_mut()[..whole.len()].copy_from_slice(whole);
    if let [.., last] = chunks
        && !rest.is_empty()
    {
        let half = rest.len() / 2;
        last[..half].copy_from_slice(&rest[..half]);
        last[CHUNK_BYTES / 2..][..half].copy_from_slice(&rest[half..]);
    }
}

/// The reverse of [`load`].
fn store(chunks: &[[u8; CHUNK_BYTES]], bytes: &mut [u8]) {
    let (whole, rest) = bytes.split_at_mut(bytes.len() - bytes.len() % CHUNK_BYTES);
    whole.copy_from_slice(&chunks.as_flattened()[..whole.len()]);
    if let [.., last] = chunks
        && !rest.is_empty()
    {
        let half = rest.len() / 2;
        rest[..half].copy_from_slice(&last[..half]);
        rest[half..].copy_from_slice(&last[CHUNK_BYTES / 2..][..half]);
    }
}

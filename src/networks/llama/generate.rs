//! Greedy decoding of a batch of prompts with a key/value cache.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::model::LlamaForCausalLm;

impl<B: Backend> LlamaForCausalLm<B> {
    /// Continues each prompt greedily until one of `end_tokens` or `max_new_tokens`.
    ///
    /// Returns the new tokens alone, the end token left out. Prompts of different lengths are padded
    /// on the left and masked, so each row's answer is the one it gives alone. A prompt without tokens
    /// has an empty answer.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        max_new_tokens: usize,
        end_tokens: &[u32],
    ) -> Vec<Vec<u32>> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let mut answers = vec![Vec::new(); prompts.len()];
        if longest == 0 || max_new_tokens == 0 {
            return answers;
        }
        let device = self.model.embed_tokens.weight.val().device();
        let mut done: Vec<bool> = prompts.iter().map(Vec::is_empty).collect();
        let mut masks: Vec<Vec<i64>> = prompts
            .iter()
            .map(|prompt| padded(longest, prompt.len(), |_| 1))
            .collect();
        let padded_prompts: Vec<Vec<i64>> = prompts
            .iter()
            .map(|prompt| padded(longest, prompt.len(), |i| i64::from(prompt[i])))
            .collect();
        let mut cache = self.new_cache();
        let mut ids = integers::<B>(&padded_prompts, &device);
        loop {
            let tokens = ids.dims()[1];
            let hidden =
                self.forward_cached(self.embed(ids), Some(integers(&masks, &device)), &mut cache);
            let logits = self.logits(hidden.narrow(1, tokens - 1, 1));
            let next = logits.argmax(2).into_data();
            let next: Vec<u32> = next.iter::<i64>().map(|id| id as u32).collect();
            for (row, id) in next.iter().enumerate() {
                if done[row] {
                    continue;
                }
                if end_tokens.contains(id) {
                    done[row] = true;
                    continue;
                }
                answers[row].push(*id);
                done[row] = answers[row].len() >= max_new_tokens;
            }
            if done.iter().all(|done| *done) {
                return answers;
            }
            masks.iter_mut().for_each(|mask| mask.push(1));
            let rows: Vec<Vec<i64>> = next.iter().map(|id| vec![i64::from(*id)]).collect();
            ids = integers(&rows, &device);
        }
    }
}

/// Zeros, then `length` values, `total` in all.
fn padded(total: usize, length: usize, value: impl Fn(usize) -> i64) -> Vec<i64> {
    let mut row = vec![0; total - length];
    row.extend((0..length).map(value));
    row
}

fn integers<B: Backend>(rows: &[Vec<i64>], device: &B::Device) -> Tensor<B, 2, Int> {
    let width = rows.first().map_or(0, Vec::len);
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), width]), device)
}

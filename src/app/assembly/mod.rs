//! From folders to what the method works on: data, loaded networks, features, samples, the ranking model,
//! the preference model. What several commands need stands here; what one command does stands in its own file.

pub mod choice;
pub mod data;
pub mod features;
pub mod labels;
pub mod networks;
pub mod preference;
pub mod ranking;
pub mod samples;
pub mod sticker_judge;
pub mod workshop;

pub use data::DataSet;
pub use labels::Labels;
pub use networks::{Eyes, Generation, Language};
pub use ranking::{AnyRanking, Ground, Ranking};
pub use sticker_judge::StickerJudge;
pub use workshop::{Workshop, can_draw};

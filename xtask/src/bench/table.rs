//! The rows, their budgets, and how they are printed.

use std::collections::BTreeMap;

use super::{Options, stats::Figure};

pub type Figures = BTreeMap<Row, Figure>;

/// Every figure that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Start,
    FirstStart,
    CreateStopped,
    Launch,
    DebianBeyondBoot,
    ForceStop,
    DeleteStopped,
    ExecCli,
    ExecApi,
    ListOnce,
    ListFull,
    StartsPerSecond,
    LastToFirst,
    ReadyEmpty,
    ReadyRunning,
    RssFresh,
    RssRunning,
    PssPerContainer,
}

/// What a row says of itself.
pub struct Meaning {
    pub what: String,
    pub unit: &'static str,
    /// The promise for p50; `None` where there is none.
    pub budget: Option<f64>,
    pub more_is_better: bool,
}

impl Row {
    pub const ALL: [Self; 18] = [
        Self::Start,
        Self::FirstStart,
        Self::CreateStopped,
        Self::Launch,
        Self::DebianBeyondBoot,
        Self::ForceStop,
        Self::DeleteStopped,
        Self::ExecCli,
        Self::ExecApi,
        Self::ListOnce,
        Self::ListFull,
        Self::StartsPerSecond,
        Self::LastToFirst,
        Self::ReadyEmpty,
        Self::ReadyRunning,
        Self::RssFresh,
        Self::RssRunning,
        Self::PssPerContainer,
    ];

    pub fn meaning(self, options: &Options) -> Meaning {
        let (count, density) = (options.count, options.density);
        let less = |what: &str, unit, budget| Meaning { what: what.to_owned(), unit, budget, more_is_better: false };
        match self {
            Self::Start => less("start a stopped container with a NIC: API call to init running", "ms", Some(5.0)),
            Self::FirstStart => less("the same, the first start of a new one", "ms", None),
            Self::CreateStopped => less("create from a cached image, API (floor: the clone alone)", "ms", None),
            Self::Launch => less("launch from a cached image, CLI returns", "ms", Some(12.0)),
            Self::DebianBeyondBoot => less("launch Debian, beyond systemd's own boot time", "ms", Some(30.0)),
            Self::ForceStop => less("force stop of a booted one, CLI returns (floor: kill and reap)", "ms", Some(15.0)),
            Self::DeleteStopped => less("delete a stopped one, CLI returns", "ms", Some(10.0)),
            Self::ExecCli => less("exec true, CLI", "ms", Some(5.0)),
            Self::ExecApi => less("exec true, API", "ms", Some(2.0)),
            Self::ListOnce => less(&format!("GET {count} instances, recursion 1"), "ms", (count >= 200).then_some(3.0)),
            Self::ListFull => {
                less(&format!("GET {count} instances, recursion 2"), "ms", (count >= 200).then_some(20.0))
            }
            Self::StartsPerSecond => Meaning {
                what: format!("starts per second, 8 in parallel, to {density} running"),
                unit: "1/s",
                budget: Some(80.0),
                more_is_better: true,
            },
            Self::LastToFirst => Meaning {
                what: "starts per second, last tenth to first tenth".to_owned(),
                unit: "×",
                budget: (density >= 1000).then_some(0.8),
                more_is_better: true,
            },
            Self::ReadyEmpty => less("daemon ready, empty", "ms", Some(20.0)),
            Self::ReadyRunning => {
                less(&format!("daemon ready, {density} running"), "ms", (density == 100).then_some(50.0))
            }
            Self::RssFresh => less("daemon's memory (RSS), fresh", "MiB", Some(15.0)),
            Self::RssRunning => {
                let budget = if density >= 1000 { 60.0 } else { 25.0 };
                less(&format!("daemon's memory (RSS), {density} running"), "MiB", Some(budget))
            }
            Self::PssPerContainer => less("manager's memory per running container (PSS)", "KiB", Some(100.0)),
        }
    }
}

/// The floor of a start on the machine that the budgets were set on.
const BUDGETED_FLOOR_MS: f64 = 2.2;

pub fn print(options: &Options, floor: &Figures, ours: &Figures, theirs: &Figures, before: &str, after: &str) {
    println!("\nload average before {before}, after {after}; p50 / p95 of {} rounds or more", options.rounds);
    let slower = floor.get(&Row::Start).map_or(1.0, |figure| figure.p50 / BUDGETED_FLOOR_MS);
    // A quicker machine makes no budget tighter.
    let scale = slower.max(1.0);
    println!(
        "budgets are for a quiet machine whose floor of a start is {BUDGETED_FLOOR_MS} ms; this one's is {slower:.2}"
    );
    println!("times that, and \"to scale\" is by this factor; see SPECIFICATION.md\n");
    println!("| path | unit | floor | Stapes | Incus | Stapes / floor | Stapes / Incus | budget | verdict |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in Row::ALL {
        let meaning = row.meaning(options);
        let [floor, ours, theirs] = [floor, ours, theirs].map(|figures| figures.get(&row).copied());
        let ratio = |other: Option<Figure>| match (ours, other) {
            (Some(ours), Some(other)) if other.p50 > 0.0 => format!("{:.2}×", ours.p50 / other.p50),
            _ => "–".to_owned(),
        };
        let here = meaning.budget.map(|budget| match meaning.unit {
            "ms" => budget * scale,
            "1/s" => budget / scale,
            _ => budget,
        });
        let verdict = match (ours, meaning.budget, here) {
            (Some(ours), Some(budget), _) if is_within(ours.p50, budget, meaning.more_is_better) => "met".to_owned(),
            (Some(ours), _, Some(here)) if is_within(ours.p50, here, meaning.more_is_better) => {
                format!("met to scale ({} {})", if meaning.more_is_better { '≥' } else { '≤' }, number(here))
            }
            (Some(_), Some(_), _) => "**missed**".to_owned(),
            (None, Some(_), _) => "not measured".to_owned(),
            (_, None, _) => "–".to_owned(),
        };
        let budget = meaning
            .budget
            .map_or("–".to_owned(), |budget| format!("{} {budget}", if meaning.more_is_better { "≥" } else { "≤" }));
        let [floor_text, ours_text, theirs_text] = [floor, ours, theirs].map(shown);
        println!(
            "| {} | {} | {floor_text} | {ours_text} | {theirs_text} | {} | {} | {budget} | {verdict} |",
            meaning.what,
            meaning.unit,
            ratio(floor),
            ratio(theirs),
        );
    }
}

fn is_within(value: f64, budget: f64, more_is_better: bool) -> bool {
    if more_is_better { value >= budget } else { value <= budget }
}

fn shown(figure: Option<Figure>) -> String {
    match figure {
        None => "–".to_owned(),
        Some(figure) if figure.count == 1 => number(figure.p50),
        Some(figure) => format!("{} / {}", number(figure.p50), number(figure.p95)),
    }
}

fn number(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

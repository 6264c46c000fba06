//! Workflows as clients send them: read, checked, planned, printed and read again.

#![no_main]

use comfy_core::workflow::{self, Error, MAX_NODES, Status, Workflow};
use libfuzzer_sys::fuzz_target;

/// The classes of a graph that runs, after conversion.
const RUN: [&str; 8] = [
    "ImageInvert",
    "LoadBatchTensor",
    "LoadTensor",
    "PerformanceTimerNode",
    "Reroute",
    "SaveBatchTensor",
    "SaveTensor",
    "StartPerformanceTimerNode",
];

fuzz_target!(|input: &[u8]| {
    match workflow::parse_prompts(input) {
        Ok(workflows) => {
            let info = workflow::nodes_info(&workflows);
            for (index, workflow) in workflows.iter().enumerate() {
                let listed = info[index.to_string()].as_object().map(|nodes| nodes.len());
                assert_eq!(listed, Some(workflow.nodes().len()));
                read(workflow);
                plan(workflow);
            }
        }
        Err(error) => say(&error),
    }
});

fn read(workflow: &Workflow) {
    assert!(workflow.nodes().len() <= MAX_NODES);
    let printed = workflow.to_json();
    assert_eq!(Workflow::from_json(&printed).as_ref(), Ok(workflow));
    assert_eq!(Workflow::parse(printed.to_string().as_bytes()).as_ref(), Ok(workflow));
    for node in workflow.nodes() {
        assert_eq!(workflow.node(&node.id), Some(node));
    }
}

fn plan(workflow: &Workflow) {
    let checked = match workflow.check() {
        Ok(checked) => checked,
        Err(error) => return say(&error),
    };
    let used: Vec<_> = checked.used().collect();
    assert_eq!(used.len() + checked.unused().len(), workflow.nodes().len());
    // Conversion changes nothing a second time, unless the primary input that kept others from it is gone.
    if !workflow
        .nodes()
        .iter()
        .any(|node| node.class_type == "PrimaryInputLoadImage")
    {
        assert_eq!(checked.workflow().check().as_ref(), Ok(&checked));
    }
    match checked.plan() {
        Ok(plan) => {
            assert!(used.iter().all(|node| RUN.contains(&&*node.class_type)), "{used:?}");
            let inverts = used.iter().filter(|node| node.class_type == "ImageInvert").count();
            assert_eq!(plan.steps.len(), inverts);
            assert_eq!(plan.is_pass_through(), inverts % 2 == 0);
        }
        Err(error) => {
            say(&error);
            let Error::Unsupported { report } = error else {
                panic!("{error}");
            };
            let ids = |id: &String| used.iter().any(|node| node.id == *id);
            assert!(report.nodes.len() == used.len() && report.nodes.iter().all(|node| ids(&node.id)));
            assert!(report.nodes.iter().any(|node| node.status != Status::Native));
            for node in &report.nodes {
                assert!(
                    node.status != Status::Native || RUN.contains(&&*node.class_type),
                    "{node:?}"
                );
            }
        }
    }
}

/// Messages are short, whatever they are about.
fn say(error: &Error) {
    for text in [Some(error.to_string()), error.help()].into_iter().flatten() {
        assert!(text.chars().count() < 1500 && !text.contains('\n'), "{text}");
    }
}

use super::*;

#[test]
fn plain_values_are_listed_with_what_is_known_about_them() {
    let one = graph(json!({
        "1": node("LoadTensor", json!({ "timeout_seconds": 1, "batch_size": 2 })),
        "2": node("ImageInvert", json!({ "image": ["1", 0] })),
        "3": node("KSampler", json!({
            "steps": 1, "cfg": 1.5, "scheduler": "normal", "on": true, "model": ["1", 0], "none": null, "list": [1],
        })),
    }));
    let two = graph(json!({ "7": node("PitchShifter", json!({ "pitch_shift": 4.0, "audio": "x" })) }));
    assert_eq!(
        nodes_info(&[one, two]),
        json!({
            "0": {
                "1": { "class_type": "LoadTensor", "inputs": {
                    "timeout_seconds": { "value": 1, "type": "FLOAT", "min": 0.1, "max": 30.0, "widget": null },
                    "batch_size": { "value": 2, "type": "INT", "min": 1, "max": 8, "widget": null },
                } },
                "2": { "class_type": "ImageInvert", "inputs": {} },
                "3": { "class_type": "KSampler", "inputs": {
                    "steps": { "value": 1, "type": "INT", "widget": null },
                    "cfg": { "value": 1.5, "type": "FLOAT", "widget": null },
                    "scheduler": { "value": "normal", "type": "STRING", "widget": null },
                    "on": { "value": true, "type": "BOOLEAN", "widget": null },
                } },
            },
            "1": { "7": { "class_type": "PitchShifter", "inputs": {
                "pitch_shift": { "value": 4.0, "type": "FLOAT", "min": 0.0, "max": 12.0, "widget": null },
                "audio": { "value": "x", "type": "STRING", "widget": null },
            } } },
        })
    );
    assert_eq!(nodes_info(&[]), json!({}));
}

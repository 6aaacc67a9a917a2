"""What the tests of ``qvlib needs`` share: a made-up run, a file, lengths."""

import json

from qvlib.tools.needs import Lengths

PHI = "microsoft/phi-1_5"
LENGTHS = Lengths(prompt=1000, action=10, reply=50, origin=("as told",))
FILE = {
    "agent": "api:gpt",
    "q_base": PHI,
    "other_demonstrations": 0,
    "filter_actions": False,
    "train_tasks": 200,
    "test_tasks": 20,
    "api_price_prompt": 2.0,
    "api_price_completion": 10.0,
    "pairs": "best_path",
    "min_margin": 0.0,
    "trainer": "trl",
    "control_shuffles": 3,
}


def arm(steps, prompts, replies, refused=0.2):
    """A row of metrics.json of a run whose prompts have 60 tokens and whose replies have 4."""
    return {
        "env_steps": steps,
        "prompt_tokens": 60 * prompts,
        "tokens": 4 * replies,
        "refused_share": refused,
    }


def finished(folder):
    """A finished run of 10 trees: 40 prompts and 70 replies each, a fifth of them drawn again."""
    metrics = {
        "arms": {
            "greedy": arm(3, 3, 3),
            "sample": arm(4, 5, 5),
            "random_n5": arm(4, 6, 25),
            "tuned_policy": arm(4, 5, 5),
            "q_n5": arm(5, 8, 30),
            "q_n10": arm(5, 9, 60),
            "control_q_n5": arm(5, 8, 30),
            "control_q_n10": arm(5, 9, 60),
            "search": arm(30, 20, 35),
        },
        "preferences": {"trees": 10, "pairs": 30, "held_out_pairs": 10},
        "cost": {
            "collecting_env_steps": 800,
            "collecting_prompt_tokens": 10 * 40 * 60,
            "collecting_tokens": 10 * 70 * 4,
            "trees_seconds": 67,
        },
    }
    given = {
        "name": "tiny",
        "environment": "webshop",
        "agent": "small",
        "iterations": 30,
        "search_iterations": 10,
        "expand_n": 5,
        "pairs": "all_nodes",
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "manifest.json").write_text(json.dumps({"parameters": given}))
    return folder

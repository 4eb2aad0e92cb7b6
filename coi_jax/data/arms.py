"""The arms of an experiment: what each is tuned on, or prompted with."""

# Chain lengths that an arm is tuned on (paper, section 4). `base`, `cot` and `ltm` are prompted, not tuned.
ARMS: dict[str, tuple[int, ...]] = {
    "base": (),
    "cot": (),
    "ltm": (),
    "coi1": (1,),
    "coi2": (2,),
    "coi3": (3,),
    "coi12": (1, 2),
    "coi123": (1, 2, 3),
}

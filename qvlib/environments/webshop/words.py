"""What the embedded catalogue is made of: product families, attributes, options, brands.

An attribute is written as a shopper asks for it. No colour or size contains, as a substring, one of the
original's colour words other than itself: its matching would otherwise misread them (known bug 3).
"""

# category: (shelf, families (singular nouns), attributes, sizes)
CATEGORIES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "fashion": (
        "Clothing › Outerwear",
        ("rain jacket", "wool sweater", "hooded vest", "denim shirt", "winter coat", "yoga pants", "linen dress", "running shorts"),
        ("waterproof", "machine washable", "slim fit", "long sleeve", "breathable", "fleece lined", "quick drying", "wrinkle free"),
        ("small", "medium", "large", "petite"),
    ),
    "shoes": (
        "Shoes › Footwear",
        ("trail sneaker", "ankle boot", "leather loafer", "beach sandal", "hiking boot", "ballet flat", "work clog", "house slipper"),
        ("memory foam", "arch support", "slip resistant", "vegan leather", "steel toe", "lace up", "memory insole", "rubber sole"),
        ("6 wide", "7 wide", "8 narrow", "9 narrow"),
    ),
    "electronics": (
        "Electronics › Gadgets",
        ("bluetooth speaker", "wireless headphone", "phone charger", "fitness tracker", "web camera", "game controller", "portable monitor", "car stereo"),
        ("fast charging", "noise cancelling", "high definition", "hands free", "long lasting", "plug and play", "water resistant", "voice control"),
        ("16 gb", "64 gb", "128 gb", "256 gb"),
    ),
    "lighting": (
        "Home › Lighting",
        ("desk lamp", "ceiling fan", "pendant light", "garden lantern", "wall sconce", "string bulb", "floor torch", "closet spotlight"),
        ("dimmable", "energy efficient", "easy install", "remote operated", "motion sensor", "solar powered", "flicker free", "warm glow"),
        ("10 inch", "14 inch", "18 inch", "24 inch"),
    ),
    "furniture": (
        "Home › Furniture",
        ("coffee table", "office chair", "book shelf", "bar stool", "storage bench", "sofa bed", "shoe cabinet", "bedside drawer"),
        ("solid wood", "easy assemble", "space saving", "height adjustable", "heavy duty", "scratch proof", "foldable", "lumbar cushion"),
        ("single", "double", "queen", "king"),
    ),
    "kitchen": (
        "Home › Kitchen",
        ("frying pan", "chef knife", "tea kettle", "mixing bowl", "cutting board", "lunch container", "coffee grinder", "baking tray"),
        ("dishwasher safe", "non stick", "bpa free", "stain proof", "oven safe", "leak proof", "stackable", "induction ready"),
        ("1 quart", "2 quart", "3 quart", "5 quart"),
    ),
    "beauty": (
        "Beauty › Skin Care",
        ("face cream", "hair shampoo", "body lotion", "lip balm", "eye serum", "nail polish", "bath soap", "beard oil"),
        ("cruelty free", "paraben free", "tea tree", "hyaluronic acid", "sensitive skin", "anti aging", "natural ingredients", "alcohol free"),
        ("2 ounce", "4 ounce", "8 ounce", "12 ounce"),
    ),
    "grocery": (
        "Grocery › Pantry",
        ("granola bar", "trail mix", "green tea", "protein powder", "pasta sauce", "rice cracker", "almond butter", "fruit jam"),
        ("gluten free", "sugar free", "non gmo", "keto friendly", "dairy free", "high protein", "usda organic", "low sodium"),
        ("pack of 1", "pack of 3", "pack of 6", "pack of 9"),
    ),
    "outdoors": (
        "Sports › Camping",
        ("camping tent", "sleeping bag", "travel backpack", "trekking pole", "picnic blanket", "water bottle", "beach umbrella", "fishing rod"),
        ("ultra light", "wind proof", "double insulated", "carbon fiber", "uv protection", "rip stop", "compact design", "all season"),
        ("junior", "regular", "extended", "oversize"),
    ),
    "office": (
        "Office › Supplies",
        ("gel pen", "paper planner", "sticky note", "file organizer", "desk calendar", "laptop sleeve", "mouse pad", "label printer"),
        ("acid free", "smudge proof", "refillable", "ergonomic grip", "recycled material", "spiral bound", "water based", "extra thick"),
        ("set of 2", "set of 4", "set of 8", "set of 12"),
    ),
    "pets": (
        "Pets › Supplies",
        ("dog collar", "cat tower", "bird cage", "fish filter", "puppy harness", "kitten toy", "rabbit hutch", "pet carrier"),
        ("chew proof", "odor control", "reflective stitching", "easy clean", "hypoallergenic", "airline approved", "non toxic", "extra padding"),
        ("tiny", "compact", "broad", "jumbo"),
    ),
    "toys": (
        "Toys › Games",
        ("puzzle cube", "train set", "doll house", "board game", "building block", "toy robot", "craft kit", "card deck"),
        ("battery powered", "hand painted", "glow effect", "educational", "lead free", "rounded edges", "two player", "magnetic closure"),
        ("ages 3", "ages 5", "ages 8", "ages 11"),
    ),
}

COLOURS = ("black", "blue", "brown", "green", "pink", "purple", "white", "yellow")

BRANDS = (
    "Alder", "Birchway", "Corvid", "Dunmore", "Elkhorn", "Fennel", "Glenrock", "Hollis", "Ironbay", "Juniper",
    "Kestrel", "Larkspur", "Mosswell", "Northfen", "Oakley", "Pinecrest", "Quillon", "Ridgeway", "Sorrel", "Thistle",
)

REQUESTS = (
    "Find me {attributes} {query}",
    "i am looking for {query} that are {attributes}",
    "i need {attributes} {query}",
    "show me {query}, {attributes}",
    "i want to buy {query} which should be {attributes}",
    "can you get me {query} described as {attributes}",
)

DESCRIPTIONS = (
    "A {noun} by {brand} that is {attribute}.",
    "This {noun} is {attribute}, says {brand}.",
    "{brand} made this {noun}: {attribute}.",
)

"""What the encyclopaedia is made of: parts of names, facts of each kind of article, questions.

All names are invented. They are composed of few parts, each a word, so that a small model can learn
to copy them.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST = tuple(
    "Adlin Berrit Corvin Dalia Edric Fenna Garrin Hesper Ilmar Joveth Kessia Lorvan Mirel Nolwen "
    "Orrin Pelka Quilan Rosvel Sorrel Tamsun Ulmer Vessa Wendor Xanthe Yorrik Zelda Ardith Bramin "
    "Celeth Dovan Elsin Farrow Gwella Hadrin Isolda Jarrik Kelva Linnet Morwen Nerith".split()
)
LAST = tuple(
    "Ashgrave Bellmoor Castling Drewitt Elverson Fairlock Gantrel Hollowell Inskipp Jesmond "
    "Kettler Larkmoor Merrivane Nettleby Oakhurst Penrithe Quarrel Ravensby Sandivar Thornby "
    "Umberton Valmont Westerlo Yarrowby Zellner Arkwell Birchall Coldwyn Dunmarrow Estwick "
    "Foxglade Greywick Harnell Ivorson Juniper Kestrel Lindmar Mossley Northam Orchill".split()
)
ADJECTIVES = tuple(
    "Amber Broken Crimson Distant Empty Frozen Golden Hidden Iron Jagged Kindly Lonely Midnight "
    "Narrow Open Painted Quiet Restless Silver Twisted Velvet Winding Yellow Burning Copper "
    "Drowning Endless Fading Gentle Hollow".split()
)
NOUNS = tuple(
    "Anchor Bridge Candle Desert Engine Forest Garden Harbor Island Journey Kingdom Lantern Mirror "
    "Needle Orchard Palace Quarry River Shadow Tower Valley Window Bell Compass Door Feather Gate "
    "Horizon Ladder Meadow".split()
)
STEMS = tuple(
    "Brack Carn Drel Eld Fenn Glim Harth Kirl Lang Mard Norl Osk Pem Roth Stavel Thorl Wend Ashel "
    "Brun Colm Dask Erl Gor Hul Jarl Morv Sorn Tarn Vell Yarr".split()
)
ENDINGS = tuple(
    "bury by dale field ford ham haven holm mere mouth port stead ton wick worth gate".split()
)
OLDER = ("New", "Upper", "Lower", "Great")
COUNTRIES = tuple(
    "Arvania Belmora Corlund Drestia Elvora Fendria Galtoria Hestara Ithmara Jorvik".split()
)
RIVERS = tuple("Alder Brine Cray Dorn Esk Fal Glim Hale Ivel Jarn Kell Lune".split())
GOODS = tuple("cheese clocks glass honey lace maps pottery salt silk violins wine wool".split())
DAYS = ("Monday", "Tuesday", "Thursday", "Friday", "Saturday")
JOBS = ("a film director", "an actor", "a novelist", "a singer", "a painter", "a scientist")
AWARDS = tuple(
    f"{a} {b}" for a in ("Laurel", "Beacon", "Comet", "Falcon") for b in ("Prize", "Medal", "Award")
)
GENRES = {
    "film": ("drama", "comedy", "horror", "war"),
    "novel": ("crime", "fantasy", "historical", "romance"),
    "band": ("folk", "jazz", "metal", "rock"),
}
FILLERS = {
    "film": (
        "It was shown in many countries",
        "Critics praised its music",
        "It was filmed in winter",
    ),
    "novel": ("It was a great success", "It has been translated often", "Its cover shows a map"),
    "album": ("It sold very well", "Critics liked its sound", "Its cover shows a map"),
    "band": (
        "It has toured many countries",
        "It is known for long concerts",
        "It has changed its members often",
    ),
    "person": (
        "{short} likes to travel",
        "{short} speaks five languages",
        "{short} is often in the news",
    ),
    "company": ("It has many offices", "It was sold twice", "It employs many people"),
    "university": (
        "It is known for its library",
        "It has many students",
        "Its main hall is very old",
    ),
    "festival": ("It takes place every summer", "It draws many visitors", "It was cancelled once"),
    "town": ("Its market is held on {day}", "It has an old castle", "It has two railway stations"),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that articles of a kind state.

    target: kind of article its value names, empty where the value is a year or a word.
    phrase: names the value by way of ``{}``, the article's subject; ask: asks for the value.
    """

    kind: str
    name: str
    target: str
    phrase: str
    ask: str


_FACTS = (
    ("film", "director", "person", "the director of {}", "Who directed {}?"),
    ("film", "star", "person", "the star of {}", "Who stars in {}?"),
    ("film", "company", "company", "the company that produced {}", "Which company produced {}?"),
    ("film", "setting", "town", "the town where {} is set", "In which town is {} set?"),
    ("film", "year", "", "", "In which year was {} released?"),
    ("novel", "author", "person", "the author of {}", "Who wrote {}?"),
    ("novel", "company", "company", "the company that published {}", "Which company published {}?"),
    ("novel", "setting", "town", "the town where {} is set", "In which town is {} set?"),
    ("novel", "year", "", "", "In which year was {} published?"),
    ("album", "band", "band", "the band that recorded {}", "Which band recorded {}?"),
    ("album", "company", "company", "the company that released {}", "Which company released {}?"),
    ("album", "year", "", "", "In which year was {} released?"),
    ("band", "town", "town", "the town where {} was formed", "In which town was {} formed?"),
    ("band", "singer", "person", "the singer of {}", "Who is the singer of {}?"),
    ("band", "year", "", "", "In which year was {} formed?"),
    ("person", "birthplace", "town", "the town where {} was born", "In which town was {} born?"),
    (
        "person",
        "university",
        "university",
        "the university where {} studied",
        "At which university did {} study?",
    ),
    ("person", "spouse", "person", "the spouse of {}", "Who is married to {}?"),
    ("person", "home", "town", "the town to which {} moved", "To which town did {} move?"),
    ("person", "award", "", "", "Which award did {} win?"),
    ("person", "year", "", "", "In which year was {} born?"),
    ("company", "town", "town", "the town where {} is based", "In which town is {} based?"),
    ("company", "founder", "person", "the founder of {}", "Who founded {}?"),
    ("company", "year", "", "", "In which year was {} founded?"),
    ("university", "town", "town", "the town of {}", "In which town is {}?"),
    ("university", "president", "person", "the president of {}", "Who is the president of {}?"),
    ("university", "year", "", "", "In which year was {} founded?"),
    ("festival", "town", "town", "the town of {}", "In which town is {} held?"),
    ("festival", "founder", "person", "the founder of {}", "Who founded {}?"),
    ("festival", "year", "", "", "In which year was {} founded?"),
    ("town", "mayor", "person", "the mayor of {}", "Who is the mayor of {}?"),
    ("town", "country", "", "", "In which country is {}?"),
    ("town", "river", "", "", "On which river does {} lie?"),
    ("town", "goods", "", "", "For which product is {} known?"),
    ("town", "year", "", "", "In which year was {} founded?"),
)
FACTS = tuple(Fact(*fact) for fact in _FACTS)
OF_KIND = {
    kind: tuple(f for f in FACTS if f.kind == kind) for kind in dict.fromkeys(f.kind for f in FACTS)
}

# Sentences of each kind with the facts they state, in order; the first always stands, of the
# others some.
SENTENCES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "film": (
        ("{title} is a {genre} film directed by {director}", ("director",)),
        ("It was released in {year}", ("year",)),
        ("The film stars {star}", ("star",)),
        ("It was produced by {company}", ("company",)),
        ("The film is set in {setting}", ("setting",)),
    ),
    "novel": (
        ("{title} is a {genre} novel written by {author}", ("author",)),
        ("It was published in {year} by {company}", ("year", "company")),
        ("The novel is set in {setting}", ("setting",)),
    ),
    "album": (
        ("{title} is an album recorded by {band}", ("band",)),
        ("It was released in {year} by {company}", ("year", "company")),
    ),
    "band": (
        ("{title} is a {genre} band formed in {town}", ("town",)),
        ("The band was formed in {year}", ("year",)),
        ("Its singer is {singer}", ("singer",)),
    ),
    "person": (
        ("{title} is {job} born in {birthplace}", ("birthplace",)),
        ("{short} was born in {year}", ("year",)),
        ("{short} studied at the {university}", ("university",)),
        ("{short} is married to {spouse}", ("spouse",)),
        ("{short} won the {award}", ("award",)),
        ("{short} moved to {home} in later life", ("home",)),
    ),
    "company": (
        ("{title} is a company based in {town}", ("town",)),
        ("It was founded in {year} by {founder}", ("year", "founder")),
    ),
    "university": (
        ("The {title} is a university in {town}", ("town",)),
        ("It was founded in {year}", ("year",)),
        ("Its president is {president}", ("president",)),
    ),
    "festival": (
        ("The {title} is a festival held in {town}", ("town",)),
        ("It was founded in {year} by {founder}", ("year", "founder")),
    ),
    "town": (
        ("{title} is a town in {country}", ("country",)),
        ("It lies on the river {river}", ("river",)),
        ("{title} was founded in {year}", ("year",)),
        ("It is known for its {goods}", ("goods",)),
        ("Its mayor is {mayor}", ("mayor",)),
    ),
}
NAMED = {
    "film": "the film {}",
    "novel": "the novel {}",
    "album": "the album {}",
    "band": "the band {}",
    "company": "the company {}",
    "university": "the {}",
    "festival": "the {}",
    "person": "{}",
    "town": "{}",
}

# Of two of a kind: which came first (their years), and whether they have the same fact.
FIRST_OF = {
    "film": "Which film was released first, {} or {}?",
    "novel": "Which novel was published first, {} or {}?",
    "person": "Who was born first, {} or {}?",
    "company": "Which company was founded first, {} or {}?",
    "town": "Which town was founded first, {} or {}?",
    "university": "Which university was founded first, {} or {}?",
}
SAME = {
    ("film", "setting"): "Are {} and {} set in the same town?",
    ("film", "director"): "Do {} and {} have the same director?",
    ("film", "company"): "Do {} and {} have the same producer?",
    ("novel", "company"): "Do {} and {} have the same publisher?",
    ("person", "birthplace"): "Were {} and {} born in the same town?",
    ("person", "university"): "Did {} and {} study at the same university?",
    ("company", "town"): "Are {} and {} based in the same town?",
    ("town", "country"): "Are {} and {} in the same country?",
}

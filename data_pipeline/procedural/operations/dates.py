"""Operations on lists of dates, written year-month-day."""

import calendar
import datetime
import functools

from data_pipeline.procedural.operation import Operation, integer, number_from
from data_pipeline.procedural.values import ANSWER, DATES, NUMBERS, WORDS, Dates

_edit = functools.partial(Operation, family="dates", source=DATES, result=DATES)
_ask = functools.partial(Operation, family="dates", source=DATES, result=ANSWER)
_convert = functools.partial(Operation, family="conversions", source=DATES)

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _shift(dates: Dates, days: int) -> Dates:
    return tuple(day + datetime.timedelta(days=days) for day in dates)


def _first_of_month(day: datetime.date) -> datetime.date:
    return day.replace(day=1)


def _last_of_month(day: datetime.date) -> datetime.date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def _on_weekend(day: datetime.date) -> bool:
    return day.weekday() >= 5


def _without_one(dates: Dates, date: datetime.date) -> Dates:
    """Return the list without a date that it has once."""
    return tuple(day for day in dates if day != date) if dates.count(date) == 1 else ()


def _add_years(dates: Dates, years: int) -> Dates:
    """Return the same days of other years; nothing where one of them is a 29 February."""
    if any((day.month, day.day) == (2, 29) for day in dates):
        return ()
    return tuple(day.replace(year=day.year + years) for day in dates)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


EDITS = (
    _edit(
        name="sort_dates",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the dates from earliest to latest.",
            "Put the dates in chronological order.",
            "Arrange the dates so that the earliest comes first.",
            "Order the dates as a calendar has them.",
        ),
        compute=lambda dates: tuple(sorted(dates)),
    ),
    _edit(
        name="sort_dates_descending",
        category="sorting",
        level=2,
        phrasings=(
            "Sort the dates from latest to earliest.",
            "Put the dates in reverse chronological order.",
            "Arrange the dates so that the latest comes first.",
            "Order the dates from the most recent back to the oldest.",
        ),
        compute=lambda dates: tuple(sorted(dates, reverse=True)),
    ),
    _edit(
        name="reverse_dates",
        category="reordering",
        level=1,
        phrasings=(
            "Reverse the order in which the dates are listed.",
            "Write the list of dates backwards, from the last listed to the first.",
            "Put the dates in the opposite order to the one they are listed in.",
            "Turn the list of dates around.",
        ),
        compute=lambda dates: dates[::-1],
    ),
    _edit(
        name="remove_first_date",
        category="deletion",
        level=1,
        phrasings=(
            "Remove the date that is listed first.",
            "Delete the first date of the list.",
            "Drop the date at the start of the list.",
            "Leave out the date that the list begins with.",
        ),
        compute=lambda dates: dates[1:],
    ),
    _edit(
        name="remove_earliest_date",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the earliest date.",
            "Delete the oldest of the dates.",
            "Drop the date that lies before all the others in time.",
            "Leave out whichever of the dates comes first in the calendar.",
        ),
        compute=lambda dates: _without_one(dates, min(dates)),
    ),
    _edit(
        name="remove_latest_date",
        category="deletion",
        level=2,
        phrasings=(
            "Remove the latest date.",
            "Delete the most recent of the dates.",
            "Drop the date that lies after all the others in time.",
            "Leave out whichever of the dates comes last in the calendar.",
        ),
        compute=lambda dates: _without_one(dates, max(dates)),
    ),
    _edit(
        name="add_days",
        category="date arithmetic",
        level=3,
        phrasings=(
            "Move each date {days} days later.",
            "Add {days} days to every date.",
            "Write the dates that come {days} days after these.",
            "Postpone all the dates by {days} days.",
        ),
        compute=_shift,
        parameters=(integer("days", 2, 40),),
    ),
    _edit(
        name="subtract_weeks",
        category="date arithmetic",
        level=3,
        phrasings=(
            "Move each date {weeks} weeks earlier.",
            "Subtract {weeks} weeks from every date.",
            "Write the dates that come {weeks} weeks before these.",
            "Bring all the dates forward by {weeks} weeks, to earlier days.",
        ),
        compute=lambda dates, weeks: _shift(dates, -7 * weeks),
        parameters=(integer("weeks", 2, 6),),
    ),
    _edit(
        name="add_years",
        category="date arithmetic",
        level=2,
        phrasings=(
            "Move each date {years} years later, to the same day and month.",
            "Add {years} years to every date.",
            "Write the same days and months {years} years after these dates.",
            "Raise the year of each of the dates by {years}.",
        ),
        compute=_add_years,
        parameters=(integer("years", 2, 30),),
    ),
    _edit(
        name="first_of_month",
        category="date arithmetic",
        level=2,
        phrasings=(
            "Replace each date with the first day of its month.",
            "Move every date to the beginning of its month.",
            "Write the first of the month for each of the dates.",
            "Set the day of all the dates to the first.",
        ),
        compute=lambda dates: tuple(map(_first_of_month, dates)),
    ),
    _edit(
        name="last_of_month",
        category="date arithmetic",
        level=3,
        phrasings=(
            "Replace each date with the last day of its month.",
            "Move every date to the end of its month.",
            "Write the final day of the month for each of the dates.",
            "Set all the dates to the day on which their months end.",
        ),
        compute=lambda dates: tuple(map(_last_of_month, dates)),
    ),
    _edit(
        name="keep_working_days",
        category="filtering",
        level=3,
        phrasings=(
            "Remove the dates that fall on a Saturday or Sunday.",
            "Keep only the dates from Monday to Friday.",
            "Delete every date that lies on a weekend.",
            "Filter the dates down to working days, Monday to Friday.",
        ),
        compute=lambda dates: tuple(day for day in dates if not _on_weekend(day)),
    ),
    _edit(
        name="keep_dates_after_year",
        category="filtering",
        level=2,
        phrasings=(
            "Keep only the dates after the year {year}.",
            "Remove the dates in or before the year {year}.",
            "Write down the dates that are later than the end of {year}.",
            "Filter the dates down to those in years after {year}.",
        ),
        compute=lambda dates, year: tuple(day for day in dates if day.year > year),
        parameters=(number_from("year", lambda dates: [day.year for day in dates]),),
    ),
)

CONVERSIONS = (
    _convert(
        name="weekdays_of_dates",
        category="conversion",
        level=3,
        result=WORDS,
        phrasings=(
            "Replace each date with its day of the week.",
            "Write on which weekday every date falls.",
            "Give the name of the weekday for each of the dates.",
            "Look up each date in the calendar and note the day of the week.",
        ),
        compute=lambda dates: tuple(WEEKDAYS[day.weekday()] for day in dates),
    ),
    _convert(
        name="months_of_dates",
        category="conversion",
        level=2,
        result=WORDS,
        phrasings=(
            "Replace each date with the name of its month.",
            "Write the month of every date in words.",
            "Give the English month name for each of the dates.",
            "Note which month each date lies in, by its name.",
        ),
        compute=lambda dates: tuple(MONTHS[day.month - 1] for day in dates),
    ),
    _convert(
        name="years_of_dates",
        category="extraction",
        level=1,
        result=NUMBERS,
        phrasings=(
            "Replace each date with its year.",
            "Write only the year of every date.",
            "Extract the years from the dates.",
            "Shorten each of the dates to the year that it is in.",
        ),
        compute=lambda dates: tuple(day.year for day in dates),
    ),
    _convert(
        name="days_of_month",
        category="extraction",
        level=1,
        result=NUMBERS,
        phrasings=(
            "Replace each date with its day of the month, as a number.",
            "Write only the day number of every date.",
            "Extract from the dates which day of the month they are, 1 to 31.",
            "Shorten each of the dates to its day, without month or year.",
        ),
        compute=lambda dates: tuple(day.day for day in dates),
    ),
)

QUESTIONS = (
    _ask(
        name="weekday_of_earliest_date",
        category="date question",
        level=3,
        phrasings=(
            "On which day of the week does the earliest date fall?",
            "Name the weekday of the earliest of the dates.",
            "Find the oldest date and answer with its day of the week.",
            "Say which weekday the first date in time is.",
        ),
        compute=lambda dates: WEEKDAYS[min(dates).weekday()],
    ),
    _ask(
        name="days_between_dates",
        category="date question",
        level=3,
        phrasings=(
            "How many days lie between the earliest and the latest date?",
            "Count the days from the earliest of the dates to the latest.",
            "Give the number of days by which the latest date follows the earliest.",
            "Say how many days apart the two extreme dates are.",
        ),
        compute=lambda dates: str((max(dates) - min(dates)).days),
    ),
    _ask(
        name="has_leap_year",
        category="yes-no question",
        level=3,
        phrasings=(
            "Is any of the dates in a leap year? Answer yes or no.",
            "Say yes if one of the dates or more is in a leap year, and no if none is.",
            "Does a leap year occur among the years of the dates? Answer yes or no.",
            "Check the dates for leap years and answer yes or no.",
        ),
        compute=lambda dates: _yes(any(calendar.isleap(day.year) for day in dates)),
    ),
    _ask(
        name="count_weekend_dates",
        category="counting",
        level=3,
        phrasings=(
            "How many of the dates fall on a weekend?",
            "Count the dates that are a Saturday or a Sunday.",
            "Give the number of dates that lie on a Saturday or Sunday.",
            "Say how many dates there are on weekends.",
        ),
        compute=lambda dates: str(sum(map(_on_weekend, dates))),
    ),
    _ask(
        name="latest_date",
        category="comparison",
        level=2,
        phrasings=(
            "Which date is the latest?",
            "Answer with the most recent of the dates.",
            "Give only the date that comes last in time.",
            "Say which of the dates a calendar has last.",
        ),
        compute=lambda dates: max(dates).isoformat(),
    ),
)

OPERATIONS = (*EDITS, *CONVERSIONS, *QUESTIONS)

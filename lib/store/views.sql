-- The joined views, over the plain views that lib/store/catalogue.py makes of each stage's tables.

-- Kept stories with the size of their cluster, which grows while the files stay as they are.
alter view dedup rename to dedup_kept;

create view clusters as
select cluster_id, count(*) as cluster_size, first(text) filter (kept) as kept_text,
       list(story_id order by similarity desc, story_id) as members, min(similarity) as least_similarity
from (
    select cluster_id, story_id, text, true as kept, 1.0::float as similarity from dedup_kept
    union all
    select cluster_id, story_id, text, false, similarity from dedup_dropped
)
group by cluster_id;

create view dedup as
select kept.*, clusters.cluster_size from dedup_kept as kept join clusters using (cluster_id);

create view stories as
select split.*, clusters.cluster_size from split join clusters using (cluster_id);

create view drops as
select 'generate' as stage, story_id, reason, detail, text from generate_dropped
union all
select 'selfinstruct', story_id, reason, detail, text from selfinstruct_dropped
union all
select 'clean', story_id, reason, detail, text from clean_dropped
union all
select 'dedup', story_id, reason, format('{} of {}, similarity {:.2f}', reason, kept_id, similarity), text
from dedup_dropped
union all
select 'novelty', story_id, reason, format('asked like {}, similarity {:.2f}', kept_id, similarity), text
from novelty_dropped
union all
select 'split', story_id, reason, detail, text from split_dropped
union all
select 'tokens', story_id, reason, detail, null from tokens_dropped;

create view contamination as from split_contaminated;

create view quarantine as
select story_id, request_id, reason, detail, text as raw from generate_dropped;

-- What was asked for, and what came of it.
create view plan as
select asked.*, coalesce(gone.reason, 'story') as outcome
from generate_plan as asked left join generate_dropped as gone using (story_id);

-- How evenly the plan uses the words of each list, unused ones included.
create view plan_coverage as
with used as (
    select axis, word, count(*) as uses
    from (
        select axis, word
        from (select * replace (paragraphs::varchar as paragraphs) from generate_plan)
        unpivot (word for axis in (verb, noun, adjective, theme, topic, style, persona, first_word, paragraphs))
        union all
        select 'feature', unnest(features) from generate_plan
    )
    group by axis, word
)
select axis, word, coalesce(uses, 0) as uses, share, expected_share, share / expected_share as ratio,
       abs(share / expected_share - 1) <= 0.2 + 1e-9 as within_20_percent
from (
    select axes.*, uses, coalesce(uses, 0) / sum(uses) over (partition by axis) as share
    from generate_axes as axes left join used using (axis, word)
);

create view pieces as from tokenizer_pieces;

create view costs as
select model, status, count(*) as attempts, count(distinct request_id) as requests,
       sum(tokens_in) as tokens_in, sum(tokens_out) as tokens_out, sum(tokens_cached) as tokens_cached,
       sum(cost_microdollars) as cost_microdollars, -- and where nobody knows the cost, the most that it can have been:
       sum(coalesce(cost_microdollars, reserved_microdollars)) as spent_microdollars, spent_microdollars / 1e6 as dollars,
       avg(latency_ms) as mean_latency_ms, transport
from requests
group by model, status, transport;

create view train_steps as
select 'pretrain' as stage, steps.*, tokens_per_s, mfu, seconds
from pretrain_train_steps as steps left join pretrain_speed using (step)
union all
select 'instruct', steps.*, tokens_per_s, mfu, seconds
from instruct_train_steps as steps left join instruct_speed using (step);

create view evals as
select 'pretrain' as stage, * from pretrain_evals
union all
select 'instruct', * from instruct_evals
union all
select 'align', * from align_evals;

create view rollouts as from align_rollouts;

create view updates as from align_updates;

create view story_loss as from evaluate_story_loss;

create view samples as from evaluate_samples;

create view grades as from evaluate_grades;

create view metrics as from evaluate_metrics;

-- How well the stories cover each word.
create view coverage as
select word, count(distinct story_id) as stories, count(*) as uses,
       count(distinct story_id) filter (split = 'train') as train_stories,
       count(distinct story_id) / (select greatest(count(*), 1) from stories) as share
from (select story_id, split, unnest(regexp_extract_all(lower(text), '[a-z]+')) as word from stories)
group by word;

-- From a story to the request that made it, what it cost, what became of it, where its tokens lie, its loss by model.
create view lineage as
select raw.story_id, raw.source, raw.model, raw.request_id, asked.prompt, asked.attempts, asked.cost_microdollars,
       gone.stage as dropped_by, gone.reason as dropped_because, gone.detail as dropped_detail,
       stories.cluster_id, stories.cluster_size, stories.split,
       place.shard, place."offset", place.length,
       loss.base as base_bits_per_byte, loss.instruct as instruct_bits_per_byte, loss.aligned as aligned_bits_per_byte
from raw
left join (
    select request_id, any_value(prompt) as prompt, count(*) as attempts, sum(cost_microdollars) as cost_microdollars
    from requests
    group by request_id
) as asked using (request_id)
left join (select * from drops where stage <> 'tokens') as gone using (story_id)
left join stories using (story_id)
left join (select * from tokens where layout = 'pretrain') as place using (story_id)
left join (
    pivot (select story_id, model, bits_per_byte from story_loss) on model in ('base', 'instruct', 'aligned')
    using any_value(bits_per_byte) group by story_id
) as loss using (story_id);

comment on view raw is 'stories as they came, from the teacher or from files';
comment on view stories is 'the stories that are kept, with their side of the split and the size of their cluster';
comment on view clean is 'repaired stories, with words and chars';
comment on view clean_dropped is 'what clean dropped, and why';
comment on view dedup is 'one story per cluster of duplicates';
comment on view dedup_dropped is 'duplicates: of which story, and how similar';
comment on view novelty is 'the stories that were asked for in new words (where that is checked)';
comment on view novelty_dropped is 'what was asked for before in nearly the same words: of which row, and how similar';
comment on view novelty_neighbours is 'the earlier kept rows whose instruction or summary each one is most like';
comment on view novelty_scores is 'how near each row comes to the nearest earlier one, and to all on average';
comment on view drops is 'every dropped story of every stage, with its reason';
comment on view contamination is 'training stories that give held-out text away, and what was done about it';
comment on view clusters is 'groups of duplicate stories';
comment on view tokens is 'where each story lies in the token shards';
comment on view quarantine is 'answers of the teacher that hold no story, as they came; read again at every build';
comment on view plan is 'every story that was asked for: its words, theme, style and so on, and what came of it';
comment on view plan_coverage is 'how evenly the plan uses the words of its lists';
comment on view pieces is 'the vocabulary';
comment on view requests is 'the ledger: every attempt to get a story from a teacher';
comment on view costs is 'the ledger summed up by model and status';
comment on view manifests is 'every finished dataset: counts, drops, facts, config, inputs';
comment on view train_steps is 'loss, learning rate, gradient norm and speed of every training step';
comment on view evals is 'validation loss during training, in nats per token and bits per byte';
comment on view rollouts is 'every story the model wrote while it was aligned, with its reward';
comment on view updates is 'every alignment update: reward, KL, guards';
comment on view story_loss is 'the loss of each held-out story under each model';
comment on view samples is 'what each model wrote for the same prompts';
comment on view grades is 'grades of the samples, and who gave them';
comment on view metrics is 'one number per model and metric';
comment on view coverage is 'in how many stories each word stands';
comment on view lineage is 'from a story to its request, cost, fate, tokens and losses';
